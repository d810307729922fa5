/**
 * Checkpoints: a folder with model.safetensors, optimizer.safetensors and state.json. It is written
 * under a temporary name, synced and renamed, so it is either complete or absent.
 */
import { existsSync, readdirSync } from 'node:fs'
import { z } from 'zod'
import { KindlingError, call, settle } from './errors'
import { longCall, type LongCallOptions } from './long-call'
import { native, type Native } from './native'
import { checked, checkedValue } from './options'
import { Optimizer } from './optimizer'
import { Transformer } from './transformer'

/** The files by which a checkpoint is told from other folders. */
const FILES = ['state.json', 'model.safetensors', 'optimizer.safetensors']

const replaceSchema = z.strictObject({ force: z.boolean().default(false) })

/**
 * A copy of a model and its optimizer, from which a checkpoint is written while training continues.
 */
export class Snapshot {
  readonly #native: Native.CheckpointSnapshot
  /** Whether it is being written, or was written or freed. */
  #isSpent = false

  /** @internal */
  constructor(handle: Native.CheckpointSnapshot) {
    this.#native = handle
  }

  /**
   * Writes the checkpoint folder `path`, replacing an existing one, as `Checkpoint.save` would have
   * done when the snapshot was taken. Frees the copy; a second call fails with `ERR_CLOSED`.
   *
   * @param options.force - replaces whatever is at `path`.
   * @throws KindlingError as `Checkpoint.save`.
   */
  async write(path: string, options: { force?: boolean } = {}): Promise<void> {
    checkedValue('Snapshot.write: path', z.string(), path)
    const { force } = checked('Snapshot.write', replaceSchema, options)
    if (this.#isSpent) {
      throw new KindlingError('ERR_CLOSED', 'the snapshot is closed; take a new one')
    }
    if (!force) refuseToReplace(path)
    this.#isSpent = true
    await settle(() => this.#native.write(path))
  }

  /** Frees the copy, unless it is being written. */
  close(): void {
    if (this.#isSpent) return
    this.#isSpent = true
    call(() => this.#native.close())
  }
}

/** Saves and loads a model with its optimizer. */
export const Checkpoint = {
  /**
   * Writes the checkpoint folder `path`, replacing an existing one.
   *
   * @param iteration - number of updates made so far; `load` returns it.
   * @param extra - JSON data stored in state.json.
   * @throws KindlingError `ERR_INVALID_ARGUMENT` if `path` exists and is not a checkpoint,
   * `ERR_DISK_FULL`, `ERR_NOT_WRITABLE` or `ERR_IO` if it cannot be written; an existing checkpoint
   * is then unchanged.
   */
  async save(
    path: string,
    model: Transformer,
    optimizer: Optimizer,
    iteration: number,
    extra: Record<string, unknown> = {},
  ): Promise<void> {
    refuseToReplace(path)
    await saveCheckpoint(path, model, optimizer, iteration, extra)
  },

  /**
   * Copies the model and the optimizer in memory, so that a checkpoint can be written while
   * training continues.
   *
   * @param iteration - as in `save`.
   * @param extra - as in `save`.
   * @returns null if there is not enough memory for a copy.
   */
  async snapshot(
    model: Transformer,
    optimizer: Optimizer,
    iteration: number,
    extra: Record<string, unknown> = {},
  ): Promise<Snapshot | null> {
    checkedValue('Checkpoint.snapshot: iteration', z.int().min(0), iteration)
    const state = jsonOf(checked('Checkpoint.snapshot: extra', z.looseObject({}), extra))
    const [engine, moments] = [Transformer.toNative(model), Optimizer.toNative(optimizer)]
    const handle = await settle(() => native.snapshotCheckpoint(engine, moments, iteration, state))
    return handle && new Snapshot(handle)
  },

  /**
   * Reads the checkpoint folder `path` into a model of the same shape and, if given, its optimizer.
   *
   * @returns the iteration passed to `save`.
   * @throws KindlingError `ERR_NOT_FOUND`, `ERR_INVALID_CHECKPOINT` if it is damaged,
   * `ERR_CHECKPOINT_MISMATCH` naming every tensor that differs. The model is then unchanged.
   */
  async load(path: string, model: Transformer, optimizer?: Optimizer): Promise<number> {
    if (optimizer === undefined) return loadWeights(path, model)
    return settle(async () =>
      native.loadCheckpoint(path, Transformer.toNative(model), Optimizer.toNative(optimizer)),
    )
  },
} as const

/** Writes a checkpoint like `Checkpoint.save`, but replaces whatever is at `path`. */
export async function saveCheckpoint(
  path: string,
  model: Transformer,
  optimizer: Optimizer,
  iteration: number,
  extra: Record<string, unknown>,
): Promise<void> {
  checkedValue('Checkpoint.save: iteration', z.int().min(0), iteration)
  const state = jsonOf(checked('Checkpoint.save: extra', z.looseObject({}), extra))
  const [engine, moments] = [Transformer.toNative(model), Optimizer.toNative(optimizer)]
  await settle(async () => native.saveCheckpoint(path, engine, moments, iteration, state))
}

/** Reads the weights of the checkpoint folder `path`; otherwise as `Checkpoint.load`. */
export async function loadWeights(
  path: string,
  model: Transformer,
  monitored: LongCallOptions = {},
): Promise<number> {
  const engine = Transformer.toNative(model)
  return longCall(monitored, async (monitor) => native.loadWeights(path, engine, monitor))
}

/**
 * Refuses to replace a file, or a folder that is not a checkpoint.
 *
 * @throws KindlingError `ERR_INVALID_ARGUMENT`.
 */
function refuseToReplace(path: string): void {
  let names: string[]
  try {
    names = readdirSync(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOTDIR' && existsSync(path)) names = [path]
    else return
  }
  if (names.length === 0 || names.some((name) => FILES.includes(name))) return
  throw new KindlingError(
    'ERR_INVALID_ARGUMENT',
    `${path} exists and is not a checkpoint; choose another folder`,
  )
}

/**
 * Returns the text for `run` in state.json, indented to fit there.
 *
 * @throws KindlingError `ERR_INVALID_ARGUMENT` if a value cannot be written as JSON.
 */
function jsonOf(extra: object): string {
  try {
    return JSON.stringify(extra, null, 2).replaceAll('\n', '\n  ')
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new KindlingError('ERR_INVALID_ARGUMENT', `extra cannot be written as JSON: ${reason}`)
  }
}
