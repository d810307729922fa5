/**
 * The model: a decoder-only Transformer of the Llama family (pre-norm, RMSNorm, rotary position
 * embeddings, SwiGLU). Weights, activations and gradients stay in native memory. Every long call
 * runs off the event loop and returns a promise.
 */
import { types } from 'node:util'
import { z } from 'zod'
import { Batch, type BatchArrays } from './batch'
import { resolveDevice } from './device'
import { KindlingError, call, settle } from './errors'
import { limits } from './limits'
import { native, type Native } from './native'
import { checked, checkedValue, isObject } from './options'
import { transformerSchema, type TransformerOptions } from './transformer-options'

export type { RopeScaling, TransformerOptions } from './transformer-options'

/** A named tensor, row-major. */
export interface Tensor {
  /** Sizes of the dimensions. */
  shape: number[]
  /** The elements; the last dimension varies fastest. */
  data: Float32Array
}

/** Tensors by name, as in checkpoint files. */
export type TensorRecord = Record<string, Tensor>

/** Time spent in one op of the engine. */
export interface OpProfile {
  /** Name of the op; for a linear layer, with its sizes: `linear::forward 512 -> 1536`. */
  op: string
  calls: number
  /** Total wall time in seconds. */
  seconds: number
  /** Total floating-point operations of its matrix products; 0 if it has none. */
  flops: number
}

/** Device of a model. */
export interface DeviceState {
  /** `cpu` or `cuda`. */
  device: string
  /** Name of the GPU, as its driver reports it; absent on the CPU. */
  name?: string
  /** Peak device memory in bytes; absent on the CPU. */
  peakBytes?: number
}

/** Options of one forward and backward pass. */
export interface ForwardBackwardOptions {
  /**
   * Return the loss. With `false`, the call does not wait for the device, and the loss is null.
   * Default true.
   */
  readLoss?: boolean
  /** Factor for the gradients: 1 / n when accumulating n batches into one step. Default 1. */
  scale?: number
}

/** Options of `forward`. */
export interface ForwardOptions {
  /** Number of sequences. Default 1. */
  batchSize?: number
}

const forwardSchema = z.strictObject({ batchSize: limits.batch.default(1) })
const passSchema = z.strictObject({
  readLoss: z.boolean().default(true),
  scale: z.number().default(1),
})

/**
 * A Transformer language model.
 *
 * The constructor only checks the options. The first call allocates memory and draws the initial
 * weights. A model runs one call at a time; a second call before the first has settled fails with
 * `ERR_BUSY`.
 */
export class Transformer {
  readonly #native: Native.Transformer
  readonly #options: Readonly<Required<TransformerOptions>>

  /**
   * @throws KindlingError `ERR_INVALID_CONFIG` if no model can have these sizes,
   * `ERR_INVALID_ARGUMENT` if an option has the wrong type or an unknown value.
   */
  constructor(options: TransformerOptions) {
    const { headSize, ropeScaling, ...given } = checked('Transformer', transformerSchema, options)
    const filled = {
      ...given,
      numKvHeads: given.numKvHeads ?? given.numHeads,
      device: resolveDevice(given.device),
      threads: given.threads ?? native.availableThreads(),
    }
    this.#native = call(
      () =>
        new native.Transformer({
          ...filled,
          ...(headSize !== undefined && { headSize }),
          ...(ropeScaling && { ropeScaling }),
        }),
    )
    this.#options = Object.freeze({
      ...filled,
      headSize: headSize ?? given.dModel / given.numHeads,
      ropeScaling,
    })
  }

  /** Returns the options with the defaults filled in. */
  get options(): Readonly<Required<TransformerOptions>> {
    return this.#options
  }

  /**
   * Returns the dtype of the operands of matrix products: `bf16` if requested and supported, else
   * `f32`.
   */
  get arithmetic(): 'f32' | 'bf16' {
    const { dtype, device } = this.#options
    return dtype === 'bf16' && device === 'cpu' && native.bf16Instructions() === null
      ? 'f32'
      : dtype
  }

  /** Returns the number of trainable parameters; a tied output layer counts once. */
  get numParameters(): number {
    return this.#native.numParameters
  }

  /**
   * Computes the mean cross-entropy of a batch and adds its gradients to the model's.
   *
   * @returns the loss in nats per token, or null with `readLoss: false`.
   * @throws KindlingError `ERR_TOKEN_OUT_OF_RANGE`, `ERR_INVALID_ARGUMENT` if rows are longer than
   * maxSeqLength, `ERR_BUSY`, `ERR_CLOSED`.
   */
  async forwardBackward(
    batch: Batch | BatchArrays,
    options: ForwardBackwardOptions & { readLoss: false },
  ): Promise<{ loss: null }>
  async forwardBackward(
    batch: Batch | BatchArrays,
    options?: ForwardBackwardOptions & { readLoss?: true },
  ): Promise<{ loss: number }>
  async forwardBackward(
    batch: Batch | BatchArrays,
    options?: ForwardBackwardOptions,
  ): Promise<{ loss: number | null }>
  async forwardBackward(
    batch: Batch | BatchArrays,
    options: ForwardBackwardOptions = {},
  ): Promise<{ loss: number | null }> {
    const handle = Batch.toNative(batch)
    const { readLoss, scale } = checked('forwardBackward', passSchema, options)
    const loss = await settle(() => this.#native.forwardBackward(handle, scale, readLoss))
    return { loss }
  }

  /**
   * Returns the mean of the losses of passes with `readLoss: false` since the last call, in nats
   * per token; 0 if there were none. Waits for the device.
   *
   * @throws KindlingError `ERR_NON_FINITE` if a queued update was skipped because a gradient was
   * NaN or infinite.
   */
  async takeLoss(): Promise<number> {
    return settle(() => this.#native.takeLoss())
  }

  /** Returns the kind of device and, for a GPU, its name and peak memory. */
  async deviceState(): Promise<DeviceState> {
    return settle(() => this.#native.deviceState())
  }

  /** Waits until the device has finished all queued work; needed before taking a time. */
  async synchronize(): Promise<void> {
    return settle(() => this.#native.synchronize())
  }

  /** Returns the mean cross-entropy of a batch in nats per token, without computing gradients. */
  async loss(batch: Batch | BatchArrays): Promise<number> {
    const handle = Batch.toNative(batch)
    return settle(() => this.#native.loss(handle))
  }

  /**
   * Returns the logits of the next token after each position.
   *
   * @param ids - at most maxSeqLength token ids.
   * @returns ids.length x vocabSize, row-major.
   */
  async logits(ids: Uint32Array): Promise<Float32Array> {
    if (!types.isUint32Array(ids)) {
      throw new KindlingError('ERR_INVALID_ARGUMENT', 'logits takes a Uint32Array of token ids')
    }
    return settle(() => this.#native.logits(ids))
  }

  /**
   * Returns the logits of the next token after each position, as `logits` does, and keeps the
   * activations for `backward`: a custom loss only needs its gradient with respect to the logits.
   *
   * @param ids - token ids of `batchSize` sequences of equal length, one after the other.
   * @returns ids.length x vocabSize, row-major.
   * @throws KindlingError `ERR_TOKEN_OUT_OF_RANGE`, `ERR_INVALID_ARGUMENT` if a sequence is longer
   * than maxSeqLength, `ERR_BUSY`, `ERR_CLOSED`.
   */
  async forward(ids: Uint32Array, options: ForwardOptions = {}): Promise<Float32Array> {
    const { batchSize } = checked('forward', forwardSchema, options)
    if (!types.isUint32Array(ids) || ids.length % batchSize !== 0) {
      throw new KindlingError(
        'ERR_INVALID_ARGUMENT',
        `forward takes a Uint32Array of token ids, ${batchSize} sequences of equal length`,
      )
    }
    return settle(() => this.#native.forward(ids, batchSize))
  }

  /**
   * Adds the gradients of the parameters to the model's, given the gradient of your loss with
   * respect to the logits of the last `forward`. An optimizer's `step` uses them, as after
   * `forwardBackward`.
   *
   * @example
   * const logits = await model.forward(ids)
   * await model.backward(gradientOfMyLoss(logits))
   * await optimizer.step()
   *
   * @param dLogits - an array as long as those logits.
   * @throws KindlingError `ERR_INVALID_ARGUMENT` without a `forward` before it, or if another pass
   * or an update came in between; `ERR_SHAPE_MISMATCH` if dLogits has another length.
   */
  async backward(dLogits: Float32Array): Promise<void> {
    if (!types.isFloat32Array(dLogits)) {
      throw new KindlingError('ERR_INVALID_ARGUMENT', 'backward takes a Float32Array')
    }
    return settle(() => this.#native.backward(dLogits))
  }

  /**
   * Freezes the parameters that a pattern matches: they get no gradient, no update and no weight
   * decay.
   *
   * @param pattern - parameter names, as in `AdamWGroup`: `transformer_blocks.0.*`, `*.g`,
   * `matrices`.
   * @returns the names of the parameters that match.
   * @throws KindlingError `ERR_INVALID_ARGUMENT` if none match, `ERR_BUSY`, `ERR_CLOSED`.
   */
  freeze(pattern: string): string[] {
    return call(() => this.#native.freeze(checkedValue('freeze', z.string(), pattern)))
  }

  /**
   * Makes the parameters that a pattern matches trainable again; by default, all of them. See
   * `freeze`.
   */
  unfreeze(pattern = '*'): string[] {
    return call(() => this.#native.unfreeze(checkedValue('unfreeze', z.string(), pattern)))
  }

  /** Copies every parameter, in the shapes of checkpoint files. */
  async stateDict(): Promise<TensorRecord> {
    return toRecord(await settle(() => this.#native.stateDict()))
  }

  /**
   * Replaces every parameter.
   *
   * @throws KindlingError `ERR_CHECKPOINT_MISMATCH` naming every missing or unexpected tensor and
   * every wrong shape; the weights are then unchanged.
   */
  async loadStateDict(tensors: TensorRecord): Promise<void> {
    if (!isObject(tensors)) {
      throw new KindlingError('ERR_INVALID_ARGUMENT', 'loadStateDict takes tensors by name')
    }
    const list = call(() => Object.entries(tensors).map((entry) => namedTensor(...entry)))
    await settle(() => this.#native.loadStateDict(list))
  }

  /** Copies every parameter's gradient, in the shapes of `stateDict`. All are zero after a step. */
  async gradients(): Promise<TensorRecord> {
    return toRecord(await settle(() => this.#native.gradients()))
  }

  /** Sets every gradient to zero, as an optimizer's `step` does. */
  async zeroGradients(): Promise<void> {
    await settle(() => this.#native.zeroGradients())
  }

  /** Returns the name of the first weight tensor that contains a NaN or an infinity, or null. */
  async nonFiniteWeight(): Promise<string | null> {
    return settle(() => this.#native.nonFiniteWeight())
  }

  /** Returns the name of the first gradient tensor that contains a NaN or an infinity, or null. */
  async nonFiniteGradient(): Promise<string | null> {
    return settle(() => this.#native.nonFiniteGradient())
  }

  /**
   * Returns the op whose output was NaN or infinite and stopped the last pass, with
   * `detectAnomaly`: `transformer_blocks.3.Feed_Forward silu output`; else null.
   */
  async nonFiniteOp(): Promise<string | null> {
    return settle(() => this.#native.nonFiniteOp())
  }

  /** Starts recording the time of each op, until `stopProfile`. */
  async startProfile(): Promise<void> {
    return settle(() => this.#native.startProfile())
  }

  /** Stops recording. Returns the time of each op since `startProfile`, longest first. */
  async stopProfile(): Promise<OpProfile[]> {
    return settle(() => this.#native.stopProfile())
  }

  /**
   * Frees the memory, at once or when the pending call settles. Does not wait for that call, and
   * may be called more than once. Later calls fail with `ERR_CLOSED`.
   */
  async close(): Promise<void> {
    call(() => this.#native.close())
  }

  /** Closes the model at the end of the block: `await using model = new Transformer(...)`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** @internal */
  static toNative(model: Transformer): Native.Transformer {
    if (isObject(model) && #native in model) return model.#native
    throw new KindlingError('ERR_INVALID_ARGUMENT', 'expected a Transformer')
  }
}

const shapeSchema = z.array(z.int().min(0))

/** Checks a tensor that a caller passed. */
function namedTensor(name: string, tensor: unknown): Native.Tensor {
  const { shape, data } = isObject(tensor) ? (tensor as Partial<Tensor>) : {}
  const sizes = shapeSchema.safeParse(shape).data
  if (!types.isFloat32Array(data) || sizes === undefined) {
    throw new KindlingError(
      'ERR_INVALID_ARGUMENT',
      `loadStateDict: ${name} is not { shape, data: Float32Array }`,
    )
  }
  const size = sizes.reduce((product, n) => product * n, 1)
  if (size !== data.length) {
    throw new KindlingError(
      'ERR_SHAPE_MISMATCH',
      `loadStateDict: ${name} has ${data.length} numbers, but its shape [${sizes.join(', ')}] ` +
        `has ${size}; pass data of that length`,
    )
  }
  return { name, shape: sizes, data }
}

function toRecord(tensors: Native.Tensor[]): TensorRecord {
  return Object.fromEntries(tensors.map(({ name, shape, data }) => [name, { shape, data }]))
}
