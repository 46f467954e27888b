//! One output of a plan.

use super::{
    FILE_TYPE_KEY, OutputRequest, Place, PlanError, PlanRequest, PlannedFile, PlannedOutput, PlannedTensor, QUANTIZATION_VERSION,
    QUANTIZATION_VERSION_KEY, append, encoder, plain_format, quantize_order, weigh, without_importance,
};
use crate::recipe::{self, Decision, FileType, QuantizeTensor, Tool};
use ggufsmith_core::{Words, formats};
use ggufsmith_gguf::{TensorSpec, ggml_shape, shard_path};

/// Decide everything about one output. What cannot be written goes into `refusals`.
pub(super) fn plan_output(
    request: &PlanRequest<'_>,
    output: &OutputRequest,
    via: Words,
    tensors: &[PlannedTensor],
    first_file: usize,
    refusals: &mut Vec<PlanError>,
) -> Result<PlannedOutput, PlanError> {
    let file_type = output.file_type;
    let model = request.model;
    let tool = tool(request, file_type);
    let imatrix = request.imatrix.filter(|_| tool == Tool::Quantize);
    let mut metadata = request.metadata.clone();
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    let keep = |index: usize| model.tensors[index].keep_f32;
    let stored = |index: usize| if keep(index) { &formats::f32::FORMAT } else { plain_format(via) };
    let (decisions, via) = match tool {
        Tool::Converter => {
            if metadata.get(FILE_TYPE_KEY).is_some() {
                metadata.set(FILE_TYPE_KEY, file_type.ftype);
            }
            let decide =
                |index: usize| recipe::decide_converter(file_type, &tensors[index].name, keep(index), tensors[index].cols);
            ((0..tensors.len()).map(decide).collect::<Vec<_>>(), None)
        }
        Tool::Quantize => {
            append(&mut metadata, QUANTIZATION_VERSION_KEY, QUANTIZATION_VERSION);
            append(&mut metadata, FILE_TYPE_KEY, file_type.ftype);
            if let Some(imatrix) = imatrix {
                imatrix.write_keys(&mut metadata);
            }
            order.sort_by(|&a, &b| quantize_order(&tensors[a].name).cmp(&quantize_order(&tensors[b].name)));
            let sorted: Vec<_> = order
                .iter()
                .map(|&i| QuantizeTensor { name: &tensors[i].name, shape: &tensors[i].shape, stored: stored(i) })
                .collect();
            let context = recipe::Context { arch: model.arch, inputs: model.recipe, imatrix: imatrix.is_some() };
            let by_order = recipe::decide_quantize(file_type, context, request.choices, &sorted)?;
            let mut decisions = vec![None; tensors.len()];
            for (&index, decision) in order.iter().zip(by_order) {
                decisions[index] = Some(decision);
            }
            (decisions.into_iter().flatten().collect(), Some(via))
        }
    };
    // One for all its tensors: they are many, and their cause is one.
    let encoders = decisions.iter().zip(tensors).map(|(decision, tensor)| encoder(tensor, decision.format));
    refusals.extend(encoders.filter_map(Result::err).take(1));
    let changed = |index: usize| via.is_some() && decisions[index].format != stored(index);
    let weighted = weigh(file_type, imatrix, tensors, &decisions, changed, refusals)?;
    let specs: Vec<TensorSpec> = order
        .iter()
        .map(|&i| TensorSpec {
            name: tensors[i].name.clone(),
            shape: match tool {
                Tool::Converter => tensors[i].shape.clone(),
                Tool::Quantize => ggml_shape(&tensors[i].shape).to_vec(),
            },
            format: decisions[i].format,
        })
        .collect();
    let fault = |source| PlanError::Split { path: output.path.clone(), source };
    let shards = ggufsmith_gguf::plan_shards(&metadata, specs, &request.split).map_err(fault)?;
    let count = shards.len();
    let mut places: Vec<Option<Place>> = tensors.iter().map(|_| None).collect();
    let mut files = Vec::with_capacity(shards.len());
    let mut in_order = order.iter();
    for (number, layout) in shards.into_iter().enumerate() {
        for (placed, &index) in layout.tensors().iter().zip(in_order.by_ref()) {
            let through = via.filter(|words| !keep(index) && *words != Words::F32);
            let (file, offset, bytes) = (first_file + number, placed.offset, placed.bytes);
            let Decision { format, rule, .. } = decisions[index].clone();
            // None only in a draft that is refused and never runs.
            let (encoder, weighted) = (formats::encoder_of(format), weighted[index]);
            places[index] = Some(Place { format, encoder, rule, weighted, through, file, offset, bytes });
        }
        let path = if count == 1 { output.path.clone() } else { shard_path(&output.path, number, count) };
        files.push(PlannedFile { path, layout });
    }
    let places = places.into_iter().flatten().collect();
    let quantized = |index: usize| decisions[index].format.is_quantized() && changed(index);
    let without_importance = without_importance(imatrix, &order, &weighted, quantized);
    let chosen = !request.choices.is_empty();
    Ok(PlannedOutput { file_type, via, places, order, files, without_importance, chosen })
}

/// The tool whose file an output equals.
fn tool(request: &PlanRequest<'_>, file_type: &FileType) -> Tool {
    let quantized_with_importance = request.imatrix.is_some() && file_type.format.is_quantized();
    if !request.choices.is_empty() || quantized_with_importance { Tool::Quantize } else { file_type.tool }
}
