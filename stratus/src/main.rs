//! The one binary of Stratus. It wires the layers together ([`node`]) and is the only crate that sees all of them;
//! the commands that talk to a running server do so over its SQL front door, like any other client.

mod cli;
mod client;
mod commands;
mod config;
mod demo;
mod doctor;
mod exit;
mod http;
mod logging;
mod node;
mod script;
mod signals;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // Two crypto providers are linked; without a choice the first TLS connection would panic. An error means that
    // one is chosen already.
    _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = cli::Arguments::parse();
    if let Err(problem) = logging::start(&arguments) {
        return exit::report(&problem);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return exit::report(&anyhow::Error::from(error).context("the runtime cannot be started"));
        }
    };
    // A task of its own, so that a panic ends here with the exit code of one.
    let outcome = runtime.block_on(async { tokio::spawn(commands::run(arguments.command)).await });
    runtime.shutdown_background();
    match outcome {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => exit::report(&error),
        Err(_panicked) => ExitCode::from(exit::INTERNAL),
    }
}
