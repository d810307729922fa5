//! The model: a slot that builds its Transformer in the first call that needs it.

use std::sync::Arc;

use kindling_core::config::ModelConfig;
use kindling_core::device::Device;
use kindling_core::dtype::Dtype;
use kindling_core::model::{Layout, NamedTensor, Transformer as Engine};
use kindling_core::{Error, Result};
use napi::bindgen_prelude::{AsyncTask, Float32Array, ToNapiValue, TypeName, Uint32Array};

use crate::error::to_napi;
use crate::exclusive::{Exclusive, Guard};
use crate::options::{finite, integer, size};
use crate::store::Batch;
use crate::task::{Job, spawn};

/// Sizes and choices of a model, all of them given.
// Each is a choice of its own.
#[allow(clippy::struct_excessive_bools)]
#[napi(object)]
pub struct TransformerOptions {
    /// Tokens in the vocabulary.
    pub vocab_size: f64,
    /// Width of the residual stream.
    pub d_model: f64,
    /// Query heads.
    pub num_heads: f64,
    /// Width of the feed-forward layer.
    pub d_ff: f64,
    /// Blocks.
    pub num_layers: f64,
    /// Longest context in tokens.
    pub max_seq_length: f64,
    /// Base of the rotary angles.
    pub theta: f64,
    /// Key/value heads.
    pub num_kv_heads: f64,
    /// The output layer is the embedding matrix.
    pub tie_embeddings: bool,
    /// Query, key and value projections have a bias.
    pub qkv_bias: bool,
    /// `cpu`, `cuda`, `cuda:N`, or `auto`: cuda where there is one, else cpu.
    pub device: String,
    /// Seed of the initial weights.
    pub seed: f64,
    /// `f32` or `bf16`.
    pub dtype: String,
    /// On cuda, products of f32 may be rounded to TensorFloat-32.
    pub tf32: bool,
    /// Threads of the CPU engine.
    pub threads: f64,
    /// The backward pass runs each block's forward pass again.
    pub recompute: bool,
}

impl TransformerOptions {
    fn config(&self) -> Result<ModelConfig> {
        let config = ModelConfig {
            vocab_size: size("vocabSize", self.vocab_size)?,
            d_model: size("dModel", self.d_model)?,
            num_heads: size("numHeads", self.num_heads)?,
            num_kv_heads: size("numKvHeads", self.num_kv_heads)?,
            d_ff: size("dFf", self.d_ff)?,
            num_layers: size("numLayers", self.num_layers)?,
            max_seq_length: size("maxSeqLength", self.max_seq_length)?,
            theta: self.theta,
            tie_embeddings: self.tie_embeddings,
            qkv_bias: self.qkv_bias,
        };
        config.validate()?;
        Ok(config)
    }
}

/// A model that may not be built yet.
pub struct Model {
    plan: Plan,
    engine: Option<Engine>,
}

/// What it takes to build it.
struct Plan {
    config: ModelConfig,
    device: String,
    dtype: Dtype,
    tf32: bool,
    seed: u64,
    threads: usize,
    recompute: bool,
}

impl Model {
    /// The engine's model, built now if need be.
    pub fn engine(&mut self) -> Result<&mut Engine> {
        if self.engine.is_none() {
            let Plan { device, threads, dtype, tf32, .. } = &self.plan;
            let device = Device::from_name(device, *threads, *dtype, *tf32)?;
            let mut engine = Engine::new(self.plan.config.clone(), device, self.plan.seed)?;
            engine.set_recompute(self.plan.recompute);
            self.engine = Some(engine);
        }
        self.engine.as_mut().ok_or_else(|| Error::Internal("the model was not built".to_owned()))
    }
}

/// A named tensor, row-major, as checkpoint files have it.
#[napi(object)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<u32>,
    /// Its elements.
    pub data: Float32Array,
}

impl From<NamedTensor> for Tensor {
    fn from(tensor: NamedTensor) -> Self {
        let shape = tensor.shape.into_iter().map(|d| d as u32).collect();
        Self { name: tensor.name, shape, data: tensor.data.into() }
    }
}

impl From<Tensor> for NamedTensor {
    fn from(tensor: Tensor) -> Self {
        let shape = tensor.shape.into_iter().map(|d| d as usize).collect();
        Self { name: tensor.name, shape, data: tensor.data.to_vec() }
    }
}

/// What one op took while a profile was taken.
#[napi(object)]
pub struct OpProfile {
    /// The op, with the sizes of a linear layer.
    pub op: String,
    /// How often it ran.
    pub calls: f64,
    /// Seconds in all.
    pub seconds: f64,
    /// Floating-point operations of its products in all.
    pub flops: f64,
}

impl From<kindling_core::profile::OpProfile> for OpProfile {
    fn from(op: kindling_core::profile::OpProfile) -> Self {
        Self { op: op.op, calls: op.calls as f64, seconds: op.seconds, flops: op.flops }
    }
}

/// What a model computes on.
#[napi(object)]
pub struct DeviceState {
    /// `cpu` or `cuda`.
    pub device: String,
    /// A GPU's name, as its driver gives it.
    pub name: Option<String>,
    /// The most device memory that was in use at once; none for the processor.
    pub peak_bytes: Option<f64>,
}

/// A Transformer language model; `src/transformer.ts` is its public face.
#[napi]
pub struct Transformer {
    inner: Arc<Exclusive<Model>>,
    num_parameters: usize,
}

/// A long call on a model.
type Call<T> = AsyncTask<Job<Guard<Model>, T>>;

impl Transformer {
    /// The lease for one call.
    pub fn acquire(&self) -> napi::Result<Guard<Model>> {
        self.inner.acquire().map_err(to_napi)
    }

    /// Its slot, for objects that belong to it.
    pub fn exclusive(&self) -> &Arc<Exclusive<Model>> {
        &self.inner
    }

    fn call<T>(
        &self,
        work: impl FnOnce(&mut Engine) -> Result<T> + Send + 'static,
    ) -> napi::Result<Call<T>>
    where
        T: ToNapiValue + TypeName + Send + 'static,
    {
        Ok(spawn(self.acquire()?, |guard| guard.with(|model| work(model.engine()?))))
    }
}

#[napi]
impl Transformer {
    /// Checks the options; the weights are drawn in the first call that needs them.
    #[napi(constructor)]
    pub fn new(options: TransformerOptions) -> napi::Result<Self> {
        let plan = (|| {
            Ok(Plan {
                config: options.config()?,
                device: options.device,
                dtype: Dtype::from_name(&options.dtype)?,
                tf32: options.tf32,
                seed: integer("seed", options.seed)?,
                threads: size("threads", options.threads)?,
                recompute: options.recompute,
            })
        })()
        .map_err(to_napi)?;
        let num_parameters = Layout::new(&plan.config).len;
        Ok(Self {
            inner: Exclusive::new("the model", Model { plan, engine: None }),
            num_parameters,
        })
    }

    /// Trainable numbers in the model.
    #[napi(getter)]
    pub fn num_parameters(&self) -> f64 {
        self.num_parameters as f64
    }

    /// Adds `scale` times the gradients of the batch's mean loss; gives the loss where it is read.
    #[napi(ts_return_type = "Promise<number | null>")]
    pub fn forward_backward(
        &self,
        batch: &Batch,
        scale: f64,
        read_loss: bool,
    ) -> napi::Result<Call<Option<f64>>> {
        let batch = Arc::clone(&batch.inner);
        let scale = finite("scale", scale).map_err(to_napi)?;
        self.call(move |model| {
            let (x, targets, scale) = (&batch.x, &batch.targets, scale as f32);
            let (rows, positions) = (batch.batch_size, batch.seq_length);
            if read_loss {
                model
                    .forward_backward(x, targets, rows, positions, scale)
                    .map(|loss| Some(loss.mean()))
            } else {
                model.accumulate(x, targets, rows, positions, scale).map(|()| None)
            }
        })
    }

    /// The mean loss of the batches whose loss was not read, since it was last taken; 0 where there are none.
    #[napi(ts_return_type = "Promise<number>")]
    pub fn take_loss(&self) -> napi::Result<Call<f64>> {
        self.call(|model| Ok(model.take_losses()?.mean()))
    }

    /// What the model computes on, once it is built.
    #[napi(ts_return_type = "Promise<DeviceState>")]
    pub fn device_state(&self) -> napi::Result<Call<DeviceState>> {
        self.call(|model| {
            let device = model.device();
            Ok(DeviceState {
                device: device.name().to_owned(),
                name: device.properties().map(|properties| properties.name.clone()),
                peak_bytes: device.peak_device_bytes().map(|bytes| bytes as f64),
            })
        })
    }

    /// Waits for the work that is queued on the device.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn synchronize(&self) -> napi::Result<Call<()>> {
        self.call(|model| model.device().synchronize())
    }

    /// The mean loss of a batch.
    #[napi(ts_return_type = "Promise<number>")]
    pub fn loss(&self, batch: &Batch) -> napi::Result<Call<f64>> {
        let batch = Arc::clone(&batch.inner);
        self.call(move |model| {
            let loss = model.loss(&batch.x, &batch.targets, batch.batch_size, batch.seq_length)?;
            Ok(loss.mean())
        })
    }

    /// The scores after each of `ids`: (ids, vocab).
    #[napi(ts_return_type = "Promise<Float32Array>")]
    pub fn logits(&self, ids: Uint32Array) -> napi::Result<Call<Float32Array>> {
        let ids = ids.to_vec();
        self.call(move |model| Ok(model.logits(&ids)?.into()))
    }

    /// A copy of every parameter.
    #[napi(ts_return_type = "Promise<Array<Tensor>>")]
    pub fn state_dict(&self) -> napi::Result<Call<Vec<Tensor>>> {
        self.call(|model| Ok(model.state_dict()?.into_iter().map(Tensor::from).collect()))
    }

    /// Replaces every parameter.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn load_state_dict(&self, tensors: Vec<Tensor>) -> napi::Result<Call<()>> {
        let tensors: Vec<NamedTensor> = tensors.into_iter().map(NamedTensor::from).collect();
        self.call(move |model| model.load_state_dict(&tensors))
    }

    /// A copy of every gradient.
    #[napi(ts_return_type = "Promise<Array<Tensor>>")]
    pub fn gradients(&self) -> napi::Result<Call<Vec<Tensor>>> {
        self.call(|model| Ok(model.gradients()?.into_iter().map(Tensor::from).collect()))
    }

    /// Sets every gradient to zero.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn zero_gradients(&self) -> napi::Result<Call<()>> {
        self.call(Engine::zero_gradients)
    }

    /// Begins to record where the time goes.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn start_profile(&self) -> napi::Result<Call<()>> {
        self.call(|model| {
            model.device().profile().start();
            Ok(())
        })
    }

    /// Ends the record; gives its ops, the longest first.
    #[napi(ts_return_type = "Promise<Array<OpProfile>>")]
    pub fn stop_profile(&self) -> napi::Result<Call<Vec<OpProfile>>> {
        self.call(|model| {
            Ok(model.device().profile().stop().into_iter().map(OpProfile::from).collect())
        })
    }

    /// Frees the model, now or when the call under way ends.
    #[napi]
    pub fn close(&self) {
        self.inner.close();
    }
}
