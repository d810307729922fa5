//! Plans the memory that training takes, for `src/account.ts`.

use kindling_core::config::ModelConfig;
use kindling_core::cpu::MatmulBackend;
use kindling_core::dtype::Dtype;
use kindling_core::model::{MemoryPlan as Plan, PlannedDevice};
use kindling_core::{Error, Result, pool};

use crate::error::to_napi;
use crate::options::size;

/// A model, with sizes as in `TransformerOptions`, and how it is trained. The device need not exist
/// on this machine.
#[allow(clippy::struct_excessive_bools, reason = "independent options of the JavaScript API")]
#[napi(object)]
pub struct MemoryPlanOptions {
    pub vocab_size: f64,
    pub d_model: f64,
    pub num_heads: f64,
    pub num_kv_heads: f64,
    pub d_ff: f64,
    pub num_layers: f64,
    /// Tokens per sequence.
    pub context: f64,
    pub tie_embeddings: bool,
    pub qkv_bias: bool,
    pub head_size: Option<f64>,
    pub qk_norm: bool,
    /// `cpu` or `cuda`.
    pub device: String,
    /// `f32` or `bf16`, as in `TransformerOptions`.
    pub dtype: String,
    /// Recomputes the activations of each block in the backward pass.
    pub recompute: bool,
    /// Sequences per step.
    pub batch_size: f64,
    /// Memory of the device in bytes.
    pub memory_bytes: f64,
}

/// Memory that training with AdamW takes, in bytes.
#[napi(object)]
pub struct MemoryPlan {
    /// The weights, and on a bf16 device their bf16 copy.
    pub parameters: f64,
    pub gradients: f64,
    /// The two moments of AdamW.
    pub optimizer: f64,
    /// Activations of the batch and their gradients, a block of logits, and scratch memory.
    pub activations: f64,
    /// Activations that one more sequence adds.
    pub activations_per_sequence: f64,
    pub total: f64,
    /// Most sequences per step that fit into `memoryBytes`; 0 if not even one does.
    pub largest_batch: f64,
}

/// Multiprocessors of an H100. They set the number of rows of a block of logits: 9,216 to 11,264
/// for GPT-2's vocabulary.
const PLANNED_MULTIPROCESSORS: usize = 132;

/// Plans the memory of training without allocating it. Throws `ERR_INVALID_CONFIG` if no model can
/// have these sizes.
#[napi(catch_unwind)]
pub fn plan_memory(options: MemoryPlanOptions) -> napi::Result<MemoryPlan> {
    plan(&options).map_err(to_napi)
}

fn plan(options: &MemoryPlanOptions) -> Result<MemoryPlan> {
    let dtype = Dtype::from_name(&options.dtype)?;
    let device = match options.device.as_str() {
        "cpu" => PlannedDevice::Cpu {
            matmul: MatmulBackend::detect(dtype),
            threads: pool::available_threads(),
        },
        "cuda" => PlannedDevice::Cuda {
            dtype,
            memory: options.memory_bytes as u64,
            multiprocessors: PLANNED_MULTIPROCESSORS,
        },
        other => {
            return Err(Error::argument(format!("device is {other}; it must be cpu or cuda")));
        }
    };
    let context = size("context", options.context)?;
    let config = ModelConfig {
        vocab_size: size("vocabSize", options.vocab_size)?,
        d_model: size("dModel", options.d_model)?,
        num_heads: size("numHeads", options.num_heads)?,
        num_kv_heads: size("numKvHeads", options.num_kv_heads)?,
        d_ff: size("dFf", options.d_ff)?,
        num_layers: size("numLayers", options.num_layers)?,
        max_seq_length: context,
        tie_embeddings: options.tie_embeddings,
        qkv_bias: options.qkv_bias,
        head_size: options.head_size.map(|value| size("headSize", value)).transpose()?,
        qk_norm: options.qk_norm,
        ..ModelConfig::PLAIN
    };
    let plan = Plan::new(config, device, options.recompute)?;
    let memory = plan.memory(size("batchSize", options.batch_size)?, context)?;
    Ok(MemoryPlan {
        parameters: memory.parameters as f64,
        gradients: memory.gradients as f64,
        optimizer: memory.optimizer as f64,
        activations: (memory.activations + memory.workspace) as f64,
        activations_per_sequence: plan.memory(1, context)?.activations as f64,
        total: memory.total() as f64,
        largest_batch: plan.largest_batch(context, options.memory_bytes as u64)? as f64,
    })
}
