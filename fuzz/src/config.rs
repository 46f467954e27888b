//! config.json.

use ggufsmith_arch::Options;
use ggufsmith_checkpoint::{Limits, safetensors_info};
use ggufsmith_core::TensorInfo;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

/// The tensors of the small model of each class.
fn models() -> &'static BTreeMap<String, Vec<TensorInfo>> {
    static MODELS: OnceLock<BTreeMap<String, Vec<TensorInfo>>> = OnceLock::new();
    MODELS.get_or_init(|| {
        let mut models = BTreeMap::new();
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/tiny");
        for entry in std::fs::read_dir(tiny).expect("fixtures are there").flatten() {
            let hf = entry.path().join("hf");
            let Ok(config) = std::fs::read(hf.join("config.json")) else { continue };
            let config: Value = serde_json::from_slice(&config).expect("fixtures are good");
            let info = safetensors_info(&hf.join("model.safetensors"), &Limits::default()).expect("fixtures are good");
            models.insert(class(&config), info.tensors);
        }
        models
    })
}

fn class(config: &Value) -> String {
    config["architectures"][0].as_str().unwrap_or_default().to_owned()
}

/// The input is a config.json; the tensors are those of the small model of its class.
pub fn config_json(data: &[u8]) {
    let Ok(config) = serde_json::from_slice::<Value>(data) else { return };
    let models = models();
    let tensors = models.get(&class(&config)).or(models.values().next()).expect("there are models");
    if let Ok(model) = ggufsmith_arch::describe(&config, tensors, &Options { strict_config: false }) {
        for tensor in &model.tensors {
            assert!(tensor.expr.elems() > 0, "{}", tensor.name);
        }
    }
    let _ = ggufsmith_arch::decoder(&config, &|name| tensors.iter().any(|info| info.name == name));
}
