//! A receiver of webhooks by https, and the authority of its own that vouches for it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

/// An authority that nobody knows, and its file.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub file: tempfile::NamedTempFile,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), issuer.pem()).unwrap();
        Authority { issuer, file }
    }

    /// A receiver that it vouches for under this name, and that answers everything with this head. It tells what it reads.
    pub async fn receiver(&self, name: &str, head: &'static str) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_string()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.into()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (told, heard) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let answered: io::Result<()> = async {
                    let mut stream = acceptor.accept(stream).await?;
                    let mut buffer = [0; 4096];
                    loop {
                        let count = stream.read(&mut buffer).await?;
                        if count == 0 {
                            return Ok(());
                        }
                        let _ = told.send(String::from_utf8_lossy(&buffer[..count]).into_owned());
                        stream.write_all(head.as_bytes()).await?;
                    }
                }
                .await;
                let _ = answered;
            }
        });
        (address, heard)
    }
}
