//! Shows a program in the browser: `terminal PORT PROGRAM ARGUMENTS...`. For trying things by hand.

use std::net::Ipv4Addr;
use std::process::ExitCode;

use portreeve_terminal::{Settings, Terminal, Token};

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let port = arguments.next().and_then(|port| port.to_str()?.parse::<u16>().ok());
    let port = port.ok_or("terminal PORT PROGRAM ARGUMENTS...")?;
    let token = Token::generate()?;
    let terminal = Terminal::bind(Settings::new(
        arguments.collect(),
        (Ipv4Addr::LOCALHOST, port).into(),
        token.clone(),
    ))?;
    println!("http://{}/?token={}", terminal.address(), token.reveal());
    let code = terminal.run()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.unwrap_or(1).into())
}
