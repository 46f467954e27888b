//! Every shader is parsed and validated, and held against its documentation, without a GPU.
use ggufsmith_shaders::{ARITHMETIC, ENTRY_POINT, KERNELS, Kernel, Params, Part, WORKGROUP, Words, parts, source};
use naga::front::wgsl;
use naga::proc::TypeResolution;
use naga::valid::{Capabilities, FunctionInfo, ModuleInfo, ValidationFlags, Validator};
use naga::{BinaryOperator, Expression, Function, MathFunction, Module, ScalarKind, ShaderStage, TypeInner};
use std::mem::offset_of;
use std::path::{Path, PathBuf};

/// No optional feature: u32 and f32 alone.
fn compile(text: &str) -> Result<(Module, ModuleInfo), String> {
    let module = wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    let info =
        Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module).map_err(|e| e.emit_to_string(text))?;
    Ok((module, info))
}

fn every_shader() -> impl Iterator<Item = (String, String)> {
    KERNELS.iter().flat_map(|kernel| {
        Words::ALL.into_iter().map(move |words| (format!("{} {words:?}", kernel.file), source(&parts(kernel, words))))
    })
}

#[test]
fn every_shader_is_valid_and_as_documented() {
    for (name, text) in every_shader() {
        let (module, _) = compile(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let [entry] = &module.entry_points[..] else { panic!("{name}: one entry point") };
        assert_eq!((entry.name.as_str(), entry.stage), (ENTRY_POINT, ShaderStage::Compute), "{name}");
        assert_eq!(entry.workgroup_size, [WORKGROUP, 1, 1], "{name}");
        let mut bindings: Vec<_> = module
            .global_variables
            .iter()
            .filter_map(|(_, v)| v.binding.map(|b| (b.group, b.binding, v.name.clone().unwrap(), v.space)))
            .collect();
        bindings.sort_by_key(|b| b.1);
        let names: Vec<_> = bindings.iter().map(|b| (b.0, b.1, b.2.as_str())).collect();
        assert_eq!(names, [(0, 0, "params"), (0, 1, "src"), (0, 2, "dst")], "{name}");
        assert_eq!(bindings[0].3, naga::AddressSpace::Uniform);
        assert_eq!(bindings[1].3, naga::AddressSpace::Storage { access: naga::StorageAccess::LOAD });
    }
}

#[test]
fn a_broken_shader_is_refused() {
    let good = source(&parts(KERNELS[0], Words::F32));
    for (from, to) in [("fn scale(first: u32)", "fn scale(first: i32)"), ("dst[at + i]", "src[at + i]"), ("return;", "return")] {
        assert!(good.contains(from), "{from}");
        assert!(compile(&good.replacen(from, to, 1)).is_err(), "{to}");
    }
}

/// Offsets, name and size of the uniform as the shader compiler lays it out.
fn uniform_layout(text: &str) -> (Vec<(String, u32)>, u32) {
    let (module, _) = compile(text).unwrap();
    let (_, params) = module.types.iter().find(|(_, t)| t.name.as_deref() == Some("Params")).unwrap();
    let TypeInner::Struct { members, span } = &params.inner else { panic!("Params is a struct") };
    (members.iter().map(|m| (m.name.clone().unwrap(), m.offset)).collect(), *span)
}

#[test]
fn the_uniform_is_laid_out_as_in_rust() {
    let expected = [
        ("units".to_owned(), offset_of!(Params, units) as u32),
        ("zero".to_owned(), offset_of!(Params, zero) as u32),
        ("block_elems".to_owned(), offset_of!(Params, block_elems) as u32),
        ("second_plane".to_owned(), offset_of!(Params, second_plane) as u32),
    ];
    let text = source(&parts(KERNELS[0], Words::F32));
    assert_eq!(uniform_layout(&text), (expected.to_vec(), size_of::<Params>() as u32));
    // The comparison notices two fields that change places.
    let swapped =
        text.replace("    units: u32,\n", "").replace("struct Params {", "struct Params {\n    filler: u32, units: u32,");
    assert_ne!(uniform_layout(&swapped).0, expected);

    let bytes = Params { units: 1, zero: 2, block_elems: 3, second_plane: 4 }.to_bytes();
    for (name, offset) in expected {
        let field = ["units", "zero", "block_elems", "second_plane"].iter().position(|n| *n == name).unwrap() as u32 + 1;
        assert_eq!(bytes[offset as usize..][..4], field.to_le_bytes(), "{name}");
    }
}

/// Functions outside common/arithmetic.wgsl that compute with floats, as `function: operation`.
fn stray_float_arithmetic(parts: &[Part<'_>]) -> Vec<String> {
    let (module, info) = compile(&source(parts)).unwrap();
    let arithmetic = parts.iter().find(|p| p.file == ARITHMETIC).unwrap().text;
    let is_float = |info: &FunctionInfo, at: naga::Handle<Expression>| {
        let resolution: &TypeResolution = &info[at].ty;
        resolution.inner_with(&module.types).scalar_kind() == Some(ScalarKind::Float)
    };
    let look = |function: &Function, info: &FunctionInfo, found: &mut Vec<String>| {
        let name = function.name.clone().unwrap_or_else(|| ENTRY_POINT.to_owned());
        if arithmetic.contains(&format!("fn {name}(")) {
            return;
        }
        for (_, expression) in function.expressions.iter() {
            let (operation, operand) = match *expression {
                Expression::Binary { op, left, .. } => (format!("{op:?}"), left),
                Expression::Math { fun, arg, .. } => (format!("{fun:?}"), arg),
                _ => continue,
            };
            let computes = match *expression {
                // Comparisons round nothing.
                Expression::Binary { op, .. } => matches!(
                    op,
                    BinaryOperator::Add
                        | BinaryOperator::Subtract
                        | BinaryOperator::Multiply
                        | BinaryOperator::Divide
                        | BinaryOperator::Modulo
                ),
                Expression::Math { fun, .. } => !matches!(fun, MathFunction::CountLeadingZeros | MathFunction::FirstLeadingBit),
                _ => false,
            };
            if computes && is_float(info, operand) {
                found.push(format!("{name}: {operation}"));
            }
        }
    };
    let mut found = Vec::new();
    for (handle, function) in module.functions.iter() {
        look(function, &info[handle], &mut found);
    }
    for (index, entry) in module.entry_points.iter().enumerate() {
        look(&entry.function, info.get_entry_point(index), &mut found);
    }
    found
}

#[test]
fn float_arithmetic_is_in_one_file() {
    for kernel in KERNELS {
        for words in Words::ALL {
            assert_eq!(stray_float_arithmetic(&parts(kernel, words)), Vec::<String>::new(), "{} {words:?}", kernel.file);
        }
    }
    // The search finds what it looks for.
    let mut parts = parts(KERNELS[0], Words::F32);
    let doubled = parts[5].text.replace("round_away(scaled)", "round_away(scaled + scaled)");
    parts[5].text = &doubled;
    assert_eq!(stray_float_arithmetic(&parts), ["codes: Add"]);
}

fn package() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn wgsl_files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".wgsl"))
        .collect();
    names.sort();
    names
}

#[test]
fn every_file_is_registered() {
    let mut kernels: Vec<_> = KERNELS.iter().map(|k| k.file.to_owned()).collect();
    kernels.sort();
    assert_eq!(wgsl_files(&package()), kernels);
    let mut common: Vec<String> = Words::ALL
        .iter()
        .flat_map(|words| parts(KERNELS[0], *words))
        .filter_map(|part| part.file.strip_prefix("common/").map(str::to_owned))
        .collect();
    common.sort();
    common.dedup();
    assert_eq!(wgsl_files(&package().join("common")), common);
}

#[test]
fn every_kernel_has_its_twin() {
    for Kernel { file, twin, text, unit_invocations, .. } in KERNELS {
        assert_eq!(WORKGROUP % unit_invocations, 0, "{file}");
        let stem = |path: &str| Path::new(path).file_stem().unwrap().to_owned();
        assert_eq!(stem(file), stem(twin));
        let path = package().join("../crates/core/src").join(twin);
        assert!(path.is_file(), "{file}: {} is missing", path.display());
        assert!(text.contains(&format!("// twin:       crates/core/src/{twin}\n")), "{file} does not name its twin");
        for item in ["// bindings: ", "// workgroup:  64 invocations\n", "// invocation: ", "// sentinel: "] {
            assert!(text.contains(item), "{file}: the header lacks {item:?}");
        }
    }
}
