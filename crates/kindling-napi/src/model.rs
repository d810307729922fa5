//! The model. Its engine is built by the first call that needs it, off the event loop.

use std::sync::Arc;

use kindling_core::config::ModelConfig;
use kindling_core::device::Device;
use kindling_core::dtype::Dtype;
use kindling_core::model::{Layout, NamedTensor, Transformer as Engine, matching};
use kindling_core::{Error, Result};
use napi::bindgen_prelude::{AsyncTask, Float32Array, ToNapiValue, TypeName, Uint32Array};

use crate::batch::Batch;
use crate::error::to_napi;
use crate::exclusive::{Exclusive, Guard};
use crate::options::{finite, integer, size, thread_count};
use crate::task::{Job, spawn};
use crate::transformer_options::TransformerOptions;

/// A model whose engine may not be built yet.
pub struct Model {
    recipe: ModelRecipe,
    engine: Option<Engine>,
    /// Names of the parameters that training leaves as they are.
    frozen: Vec<String>,
}

/// Checked options, from which the engine is built.
struct ModelRecipe {
    config: ModelConfig,
    device: String,
    dtype: Dtype,
    tf32: bool,
    seed: u64,
    threads: usize,
    recompute: bool,
    detect_anomaly: bool,
}

impl Model {
    /// Returns the engine, building it on first use.
    pub fn engine(&mut self) -> Result<&mut Engine> {
        if self.engine.is_none() {
            let seed = self.recipe.seed;
            self.engine = Some(self.build(|config, device| Engine::new(config, device, seed))?);
        }
        self.engine.as_mut().ok_or_else(|| Error::Internal("the model was not built".to_owned()))
    }

    /// Runs `load`, which replaces every weight. A model that is not built yet is built without
    /// drawing initial weights, and kept only if `load` succeeds.
    pub fn load<T>(&mut self, load: impl FnOnce(&mut Engine) -> Result<T>) -> Result<T> {
        if let Some(engine) = &mut self.engine {
            return load(engine);
        }
        let mut engine = self.build(Engine::blank)?;
        let result = load(&mut engine)?;
        self.engine = Some(engine);
        Ok(result)
    }

    /// Runs `check`, which reads no weights, on the engine, or on a blank one if it is not built
    /// yet.
    pub fn inspect<T>(&self, check: impl FnOnce(&Engine) -> Result<T>) -> Result<T> {
        match &self.engine {
            Some(engine) => check(engine),
            None => check(&self.build(Engine::blank)?),
        }
    }

    fn build(&self, of: impl FnOnce(ModelConfig, Device) -> Result<Engine>) -> Result<Engine> {
        let recipe = &self.recipe;
        let ModelRecipe { config, threads, dtype, tf32, .. } = recipe;
        let device = Device::from_name(&recipe.device, *threads, *dtype, *tf32)?;
        let mut engine = of(config.clone(), device)?;
        engine.set_recompute(recipe.recompute);
        engine.set_detect_anomaly(recipe.detect_anomaly);
        engine.set_frozen(&self.frozen)?;
        Ok(engine)
    }

    /// Freezes or unfreezes the parameters that `pattern` matches. Returns their names.
    fn set_frozen(&mut self, pattern: &str, freeze: bool) -> Result<Vec<String>> {
        let names = matching(&Layout::new(&self.recipe.config).parameters, pattern)?;
        self.frozen.retain(|name| !names.contains(name));
        if freeze {
            self.frozen.extend_from_slice(&names);
        }
        if let Some(engine) = &mut self.engine {
            engine.set_frozen(&self.frozen)?;
        }
        Ok(names)
    }
}

/// A named f32 tensor, row-major, in the shape that checkpoint files use.
#[napi(object)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<u32>,
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

/// Time spent in one op of the engine while profiling.
#[napi(object)]
pub struct OpProfile {
    /// Name of the op; for a linear layer, with its sizes: `linear::forward 512 -> 1536`.
    pub op: String,
    pub calls: f64,
    /// Total wall time in seconds.
    pub seconds: f64,
    /// Total floating-point operations of its matrix products; 0 if it has none.
    pub flops: f64,
}

impl From<kindling_core::profile::OpProfile> for OpProfile {
    fn from(op: kindling_core::profile::OpProfile) -> Self {
        Self { op: op.op, calls: op.calls as f64, seconds: op.seconds, flops: op.flops }
    }
}

/// Device of a model.
#[napi(object)]
pub struct DeviceState {
    /// `cpu` or `cuda`.
    pub device: String,
    /// Name of the GPU, as its driver reports it; absent on the CPU.
    pub name: Option<String>,
    /// Peak device memory in bytes; absent on the CPU.
    pub peak_bytes: Option<f64>,
}

/// A Transformer language model. The public class is in `src/transformer.ts`.
#[napi]
pub struct Transformer {
    inner: Arc<Exclusive<Model>>,
    num_parameters: usize,
}

/// A promise of a call on a model.
type Call<T> = AsyncTask<Job<Guard<Model>, T>>;

impl Transformer {
    /// Reserves the model for one call.
    pub fn acquire(&self) -> napi::Result<Guard<Model>> {
        self.inner.acquire().map_err(to_napi)
    }

    /// Returns the model, for objects that belong to it.
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
    /// Checks the options. The first call that needs them allocates memory and draws the weights.
    ///
    /// Throws `ERR_INVALID_CONFIG` if no model can have these sizes. A call on the model fails with
    /// `ERR_BUSY` while another one is pending, and with `ERR_CLOSED` after `close`.
    #[napi(constructor, catch_unwind)]
    pub fn new(options: TransformerOptions) -> napi::Result<Self> {
        let recipe = (|| {
            Ok(ModelRecipe {
                config: options.config()?,
                device: options.device,
                dtype: Dtype::from_name(&options.dtype)?,
                tf32: options.tf32,
                seed: integer("seed", options.seed)?,
                threads: thread_count(options.threads)?,
                recompute: options.recompute,
                detect_anomaly: options.detect_anomaly,
            })
        })()
        .map_err(to_napi)?;
        let num_parameters = Layout::new(&recipe.config).len;
        Ok(Self {
            inner: Exclusive::new("the model", Model { recipe, engine: None, frozen: Vec::new() }),
            num_parameters,
        })
    }

    /// Number of parameters; a tied output layer counts once.
    #[napi(getter, catch_unwind)]
    pub fn num_parameters(&self) -> f64 {
        self.num_parameters as f64
    }

    /// Adds `scale` times the gradient of the batch's mean loss to the gradients. Returns that loss
    /// in nats per token. Without `readLoss` nothing waits for the device: the result is null, and
    /// `takeLoss` returns the loss later.
    ///
    /// Fails with `ERR_TOKEN_OUT_OF_RANGE`, or `ERR_INVALID_ARGUMENT` if rows are longer than
    /// `maxSeqLength`, before anything changes.
    #[napi(catch_unwind, ts_return_type = "Promise<number | null>")]
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

    /// Returns the mean of the losses that were not read, in nats per token, and forgets them; 0 if
    /// there are none. Waits for the device. Fails with `ERR_NON_FINITE` if a queued update was
    /// skipped because a gradient was NaN or infinite.
    #[napi(catch_unwind, ts_return_type = "Promise<number>")]
    pub fn take_loss(&self) -> napi::Result<Call<f64>> {
        self.call(|model| Ok(model.take_losses()?.mean()))
    }

    /// Returns the kind of device and, for a GPU, its name and peak memory.
    #[napi(catch_unwind, ts_return_type = "Promise<DeviceState>")]
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

    /// Waits until the device has finished all queued work, as a timing must.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn synchronize(&self) -> napi::Result<Call<()>> {
        self.call(|model| model.device().synchronize())
    }

    /// Returns the mean loss of a batch in nats per token, without gradients.
    #[napi(catch_unwind, ts_return_type = "Promise<number>")]
    pub fn loss(&self, batch: &Batch) -> napi::Result<Call<f64>> {
        let batch = Arc::clone(&batch.inner);
        self.call(move |model| {
            let loss = model.loss(&batch.x, &batch.targets, batch.batch_size, batch.seq_length)?;
            Ok(loss.mean())
        })
    }

    /// Returns the logits of the next token after each of `ids`, one sequence of at most
    /// `maxSeqLength`: `ids.length` x `vocabSize`, row-major.
    #[napi(catch_unwind, ts_return_type = "Promise<Float32Array>")]
    pub fn logits(&self, ids: Uint32Array) -> napi::Result<Call<Float32Array>> {
        let ids = ids.to_vec();
        self.call(move |model| Ok(model.logits(&ids)?.into()))
    }

    /// Returns the logits as `logits` does, for `batchSize` sequences of equal length, one after
    /// the other in `ids`. Keeps the activations for `backward`.
    #[napi(catch_unwind, ts_return_type = "Promise<Float32Array>")]
    pub fn forward(&self, ids: Uint32Array, batch_size: f64) -> napi::Result<Call<Float32Array>> {
        let batch = size("batchSize", batch_size).map_err(to_napi)?.max(1);
        let ids = ids.to_vec();
        self.call(move |model| Ok(model.forward(&ids, batch, ids.len() / batch)?.into()))
    }

    /// Adds the gradients of the parameters to the model's, given the gradient `dlogits` of the
    /// logits that `forward` returned, in the same shape.
    ///
    /// Fails with `ERR_INVALID_ARGUMENT` if another pass or an update came after `forward`, and
    /// with `ERR_SHAPE_MISMATCH` if the length differs.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn backward(&self, dlogits: Float32Array) -> napi::Result<Call<()>> {
        let dlogits = dlogits.to_vec();
        self.call(move |model| model.backward(&dlogits))
    }

    /// Freezes the parameters that `pattern` matches: they get no gradient and no update. In a
    /// pattern, `*` matches any characters, and `matrices` every matrix. Returns the names that
    /// match; throws `ERR_INVALID_ARGUMENT` if none does.
    #[napi(catch_unwind)]
    pub fn freeze(&self, pattern: String) -> napi::Result<Vec<String>> {
        self.acquire()?.with(|model| model.set_frozen(&pattern, true)).map_err(to_napi)
    }

    /// Makes the parameters that `pattern` matches trainable again. Returns their names.
    #[napi(catch_unwind)]
    pub fn unfreeze(&self, pattern: String) -> napi::Result<Vec<String>> {
        self.acquire()?.with(|model| model.set_frozen(&pattern, false)).map_err(to_napi)
    }

    /// Returns a copy of every parameter.
    #[napi(catch_unwind, ts_return_type = "Promise<Array<Tensor>>")]
    pub fn state_dict(&self) -> napi::Result<Call<Vec<Tensor>>> {
        self.call(|model| Ok(model.state_dict()?.into_iter().map(Tensor::from).collect()))
    }

    /// Replaces every parameter. Fails with `ERR_CHECKPOINT_MISMATCH`, naming all missing,
    /// unexpected and misshapen tensors; the weights are then unchanged.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn load_state_dict(&self, tensors: Vec<Tensor>) -> napi::Result<Call<()>> {
        let tensors: Vec<NamedTensor> = tensors.into_iter().map(NamedTensor::from).collect();
        Ok(spawn(self.acquire()?, move |guard| {
            guard.with(|model| model.load(|engine| engine.load_state_dict(&tensors)))
        }))
    }

    /// Returns a copy of every gradient, named and shaped as its parameter.
    #[napi(catch_unwind, ts_return_type = "Promise<Array<Tensor>>")]
    pub fn gradients(&self) -> napi::Result<Call<Vec<Tensor>>> {
        self.call(|model| Ok(model.gradients()?.into_iter().map(Tensor::from).collect()))
    }

    /// Sets every gradient to zero.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn zero_gradients(&self) -> napi::Result<Call<()>> {
        self.call(Engine::zero_gradients)
    }

    /// Returns the name of the first tensor of weights with a NaN or an infinity, or null.
    #[napi(catch_unwind, ts_return_type = "Promise<string | null>")]
    pub fn non_finite_weight(&self) -> napi::Result<Call<Option<String>>> {
        self.call(|model| Ok(model.non_finite_weight()?.map(str::to_owned)))
    }

    /// Returns the name of the first tensor of gradients with a NaN or an infinity, or null.
    #[napi(catch_unwind, ts_return_type = "Promise<string | null>")]
    pub fn non_finite_gradient(&self) -> napi::Result<Call<Option<String>>> {
        self.call(|model| Ok(model.non_finite_gradient()?.map(str::to_owned)))
    }

    /// Returns the op whose output was NaN or infinite and stopped the last pass, with
    /// `detectAnomaly`; else null.
    #[napi(catch_unwind, ts_return_type = "Promise<string | null>")]
    pub fn non_finite_op(&self) -> napi::Result<Call<Option<String>>> {
        self.call(|model| Ok(model.non_finite_op().map(str::to_owned)))
    }

    /// Starts recording the time of each op, until `stopProfile`.
    #[napi(catch_unwind, ts_return_type = "Promise<void>")]
    pub fn start_profile(&self) -> napi::Result<Call<()>> {
        self.call(|model| {
            model.device().profile().start();
            Ok(())
        })
    }

    /// Stops recording. Returns the time of each op since `startProfile`, longest first.
    #[napi(catch_unwind, ts_return_type = "Promise<Array<OpProfile>>")]
    pub fn stop_profile(&self) -> napi::Result<Call<Vec<OpProfile>>> {
        self.call(|model| {
            Ok(model.device().profile().stop().into_iter().map(OpProfile::from).collect())
        })
    }

    /// Frees the model, at once or when the pending call settles. Never waits, and may be called
    /// again.
    #[napi(catch_unwind)]
    pub fn close(&self) {
        self.inner.close();
    }
}
