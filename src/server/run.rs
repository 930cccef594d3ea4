//! `fanfare serve` and `fanfare demo`: from settings to exit code.

use std::io::Write;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::{Server, machine};
use crate::config::{self, Config, Mode};
use crate::telemetry;

/// Runs a hub until SIGTERM or SIGINT. 0: it stopped as asked; 1: it could not start.
pub fn run(config: &Config, mode: Mode) -> ExitCode {
    telemetry::start_log(&config.options.log, config.options.log_format == "json");
    let (room, wanted) = (machine::open_files(), config.options.limits.connections as u64);
    if room < wanted {
        tracing::warn!(
            "the limit of open files leaves room for {room} connections of the {wanted} of max_connections; raise it with ulimit -n"
        );
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().thread_name("front").enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string()),
    };
    runtime.block_on(async {
        let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return fail("signals cannot be waited for");
        };
        let server = match Server::start(config, mode).await {
            Ok(server) => server,
            Err(error) => return fail(&error.to_string()),
        };
        announce(&server, config, mode);
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
        server.stop().await;
        tracing::info!("stopped");
        ExitCode::SUCCESS
    })
}

fn fail(text: &str) -> ExitCode {
    eprintln!("fanfare: {text}");
    ExitCode::FAILURE
}

/// What a person needs to go on, on standard output.
fn announce(server: &Server, config: &Config, mode: Mode) {
    let (http, options) = (server.http, &config.options);
    let mut lines = vec![format!("Fanfare {} listens.", env!("CARGO_PKG_VERSION"))];
    if mode.is_demo() {
        lines.push(format!("\n  Open this page     http://{http}/"));
        if let Some(door) = server.door {
            let port = door.port();
            lines.push(format!("  For any back end   export REDIS_URL=redis://{door}"));
            lines.push(format!(
                "  Paste this         redis-cli -p {port} XADD {} '*' topic hello data '{{\"text\":\"안녕하세요 · hello\"}}'",
                options.ingest_stream
            ));
            lines.push("  Without redis-cli  ".to_string() + &curl(http));
        } else {
            lines.push(format!("  Paste this         {}", curl(http)));
        }
        let kept = match options.store.strip_prefix("disk:") {
            Some(folder) => format!("kept in {folder}"),
            None => "in memory only".into(),
        };
        lines.push(format!("\n  On this machine only, {kept}, open to all on it. Ctrl-C ends it."));
    } else {
        lines.push(format!("  http    http://{http}/"));
        match server.admin {
            Some(admin) => lines.push(format!("  admin   http://{admin}/metrics")),
            None => lines.push(format!("  admin   http://{http}/metrics")),
        }
        if let Some(door) = server.door {
            lines.push(format!("  redis   redis://{door} (XADD {})", options.ingest_stream));
        }
        lines.push(format!("  store   {}", config::redacted(&options.store)));
        lines.push("  Without keys: whoever reaches these addresses may publish and subscribe.".into());
    }
    // A closed standard output is no reason to stop.
    let _ = writeln!(std::io::stdout().lock(), "{}", lines.join("\n"));
}

fn curl(http: std::net::SocketAddr) -> String {
    format!("curl --json '{{\"text\":\"안녕하세요 · hello\"}}' http://{http}/v1/topics/hello/messages")
}
