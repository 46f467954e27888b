//! Writes a Llama checkpoint with random BF16 weights.
//!
//! usage: `random_model FOLDER MEBIBYTES [HIDDEN [SHARDS]]`; defaults: hidden size 2048, one shard

use ggufsmith_tests::random_model::Shape;
use std::error::Error;
use std::io::Write;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (Some(folder), Some(size)) = (args.first(), args.get(1)) else {
        return Err("usage: random_model FOLDER MEBIBYTES [HIDDEN [SHARDS]]".into());
    };
    let number = |index: usize, default: u64| args.get(index).map_or(Ok(default), |text| text.parse::<u64>());
    let hidden = number(2, 2048)?;
    if hidden == 0 || hidden % 256 != 0 {
        return Err(format!("HIDDEN is {hidden}, it must be a multiple of 256").into());
    }
    let shape = Shape::of_bytes(size.parse::<u64>()? << 20, hidden, number(3, 1)?);
    shape.write(Path::new(folder))?;
    writeln!(std::io::stdout(), "{folder}: {} layers, {} bytes of weights", shape.layers, shape.bytes())?;
    Ok(())
}
