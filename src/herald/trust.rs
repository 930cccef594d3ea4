//! Who may vouch for receivers of webhooks by https: the roots that Mozilla trusts, which are built in so that an image
//! without any certificates works like every other, and those of a file that the operator names.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

#[derive(Debug, Clone)]
pub struct Trust(RootCertStore);

impl Default for Trust {
    fn default() -> Trust {
        Trust(RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()))
    }
}

impl Trust {
    /// Trusts the certificates of a PEM file too.
    pub fn with_file(mut self, path: &Path) -> Result<Trust, String> {
        let wrong = |why: String| format!("{}: {why}; it takes a file of certificates in PEM", path.display());
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
        let mut count = 0;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            self.0.add(certificate).map_err(|error| wrong(error.to_string()))?;
            count += 1;
        }
        if count == 0 { Err(wrong("it holds none".into())) } else { Ok(self) }
    }

    pub(super) fn into_config(self) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has suites for the versions that are built in")
            .with_root_certificates(self.0)
            .with_no_client_auth()
    }
}
