//! The sample website, and small tools for containers that hold nothing else.
//!
//! One static executable with no dependency but the standard library. It knows nothing of
//! skiff: everything it shows comes from its environment, its files and its connections.

mod get;
mod grpc;
mod http;
mod options;
mod pages;
mod resolve;
mod server;
mod signals;
mod tools;

use std::process::ExitCode;

const HELP: &str = "\
A sample website and small tools, in one static executable.

usage: testapp [COMMAND] [ARGUMENTS]

  serve               serve the website (the default); settings come from the environment:
                        VERSION, PORT (8080), CONFIG_DIR (/etc/website), POD_NAME, NODE_NAME,
                        READY_DELAY_MS, FAIL_READYZ, FAIL_HEALTHZ, FAIL_HEALTHZ_AFTER_MS,
                        NOT_READY_FILE, DRAIN_MS (500), GRACE_MS (25000), MAX_CONNECTIONS (512)
  healthcheck URL     exit with 0 if GET URL answers with 2xx or 3xx
  get URL             print the answer to GET URL
  resolve NAME [TYPE] print the addresses (or SRV, PTR, CNAME records) of NAME
  wait [--ignore-term]
                      wait for SIGTERM, or for SIGKILL alone
  sleep SECONDS       sleep; SIGTERM ends it
  crash [CODE [MS]]   exit with CODE (1) after MS milliseconds (0)
  print N [MS [SIZE]] print N numbered lines, one every MS milliseconds, padded to SIZE bytes
  cat [FILE…]         print files, or standard input
  ls [DIR]            list a directory
  write FILE TEXT     write TEXT to FILE
  env                 print the environment
  echo-stdin          answer every line of standard input
  terminal            say whether this is a terminal, and its size
  burn MS             use one processor for MS milliseconds
  allocate MIB        use MIB mebibytes of memory, then wait for SIGTERM
  tcp PORT            echo every connection on PORT
  udp PORT            echo every datagram on PORT
  grpc PORT [--not-serving]
                      answer gRPC health checks on PORT
  version             print the version
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        None => ("serve", &[][..]),
        Some((command, rest)) => (command.as_str(), rest),
    };
    let result = match command {
        "serve" | "--version" => serve(&arguments),
        "healthcheck" => get::healthcheck(rest),
        "get" => get::print(rest),
        "resolve" => resolve::command(rest),
        "grpc" => grpc::command(rest),
        "version" => {
            println!("{}", options::version());
            Ok(0)
        }
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(0)
        }
        other => tools::run(other, rest)
            .unwrap_or_else(|| Err(format!("unknown command {other}; try `testapp help`"))),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            eprintln!("testapp: {message}");
            ExitCode::from(2)
        }
    }
}

fn serve(arguments: &[String]) -> Result<u8, String> {
    let options = options::Options::from_environment(arguments)?;
    server::Server::bind(options)?.run()
}
