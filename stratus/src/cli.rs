//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::demo::DemoArguments;

const EXIT_CODES: &str = "Exit codes: 0 done, also after SIGTERM or Ctrl-C has drained; 1 failed; 2 usage; \
    69 the server cannot be reached; 70 internal error; 75 try again later (something is in use); \
    78 the configuration or a definition is wrong; 130 interrupted.\n\
    STRATUS_LOG filters the log, for instance STRATUS_LOG=debug or STRATUS_LOG=stratus_speed=trace.";

/// SQL views over events, counted live and recomputed from Parquet, with one exact answer.
#[derive(Debug, Parser)]
#[command(name = "stratus", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// How the log on stderr is written.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, global = true)]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run every layer in this process, until SIGTERM or Ctrl-C.
    Up(UpArguments),
    /// Run the ingest layer alone: from the sources' logs into the master dataset.
    Ingest(LayerArguments),
    /// Run the speed layer alone: from the sources' logs into real-time state.
    Speed(LayerArguments),
    /// Run the batch layer alone: recomputes, asked for and scheduled.
    Batch(LayerArguments),
    /// Run the serving layer alone: SQL and HTTP. There may be several.
    Serve(UpArguments),
    /// Send SQL to a running server: a query, statements from stdin, or line by line.
    Sql(SqlArguments),
    /// Look at the views of a running server.
    #[command(subcommand)]
    View(ViewCommand),
    /// Look at the topologies of a running server: the views of each source run as one.
    #[command(subcommand)]
    Topology(TopologyCommand),
    /// See whether everything that the configuration names is there and fit, and what to do if not.
    Doctor(DoctorArguments),
    /// Print what the configuration keeps of a password instead of it; asks for it, or reads a line of stdin.
    Password,
    /// Show the whole thing with a benchmark's events, and check every count.
    Demo(DemoArguments),
}

#[derive(Debug, Args)]
pub(crate) struct UpArguments {
    /// The configuration; ./stratus.toml is read if it exists.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Statements to run once the server is up; the first that fails stops it.
    #[arg(long, value_name = "FILE")]
    pub(crate) sql: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct LayerArguments {
    /// The configuration, the same for every layer; ./stratus.toml is read if it exists.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where health and metrics are told over HTTP, for instance 127.0.0.1:9464; nowhere if it is not given.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) http: Option<std::net::SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// The configuration; ./stratus.toml is read if it exists.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Tell it as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SqlArguments {
    /// The statements; without them they are read from stdin.
    pub(crate) query: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ViewCommand {
    /// The views, and from where they answer.
    List {
        #[command(flatten)]
        server: ServerArguments,
    },
    /// A view's definition, aggregates with their classes, versions and state.
    Describe {
        /// The view.
        name: String,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Recompute a view from the master dataset, and wait for it.
    Refresh {
        /// The view.
        name: String,
        #[command(flatten)]
        server: ServerArguments,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopologyCommand {
    /// The topologies, and how they are.
    List {
        #[command(flatten)]
        server: ServerArguments,
    },
    /// A topology's components and streams, with their counts and times.
    Describe {
        /// The topology; that of a source's views has the source's name.
        name: String,
        /// Draw it in the language of Graphviz instead.
        #[arg(long)]
        dot: bool,
        #[command(flatten)]
        server: ServerArguments,
    },
}

/// Which server to reach.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ServerArguments {
    /// The configuration of the server; its pg.listen is where it is reached.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The server as a URL: postgres://stratus@127.0.0.1:5433/stratus
    #[arg(long, conflicts_with_all = ["config", "host", "port"])]
    pub(crate) url: Option<String>,
    /// The server's host.
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// The server's port for SQL.
    #[arg(short, long)]
    pub(crate) port: Option<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }
}
