//! Serves a Hub on loopback, for measurements and for trying things by hand.
//!
//! usage: `mock_hub PORT [ID FOLDER]...`; with the environment variable `RATE`: bytes a second of every body; with `CAS`: the program
//! `local_cas_server`, Xet's storage. Its token is `hf_ofatest`. `GET /_log` shows what was asked.

use ggufsmith_tests::hub::{Cas, HubServer, Repo, Settings};
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((port, repos)) = args.split_first().filter(|(_, repos)| repos.len() % 2 == 0) else {
        return Err("usage: mock_hub PORT [ID FOLDER]...".into());
    };
    let rate = std::env::var("RATE").map_or(Ok(0), |text| text.parse())?;
    let cas = std::env::var_os("CAS").map(|program| Cas::start(Path::new(&program)));
    let settings =
        Settings { port: port.parse()?, rate, cas: cas.as_ref().map(|cas| cas.endpoint().to_owned()), ..Settings::default() };
    let server = HubServer::start(settings);
    for pair in repos.chunks_exact(2) {
        server.add(Repo::of_folder(&pair[0], Path::new(&pair[1])));
    }
    writeln!(std::io::stdout(), "{}", server.endpoint())?;
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
