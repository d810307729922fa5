/**
 * Checkpoints: a folder with model.safetensors, optimizer.safetensors and state.json. It is written
 * under a temporary name, synced and renamed, so it is either complete or absent.
 */
import { z } from 'zod'
import { KindlingError, settle } from './errors'
import { native } from './native'
import { checked, checkedValue } from './options'
import { Optimizer } from './optimizer'
import { Transformer } from './transformer'

/** Saves and loads a model with its optimizer. */
export const Checkpoint = {
  /**
   * Writes the checkpoint folder `path`, replacing an existing one.
   *
   * @param iteration - number of updates made so far; `load` returns it.
   * @param extra - JSON data stored in state.json.
   * @throws KindlingError `ERR_DISK_FULL`, `ERR_NOT_WRITABLE` or `ERR_IO` if it cannot be written;
   * `path` is then unchanged.
   */
  async save(
    path: string,
    model: Transformer,
    optimizer: Optimizer,
    iteration: number,
    extra: Record<string, unknown> = {},
  ): Promise<void> {
    checkedValue('Checkpoint.save: iteration', z.int().min(0), iteration)
    const state = jsonOf(checked('Checkpoint.save: extra', z.looseObject({}), extra))
    await settle(async () =>
      native.saveCheckpoint(
        path,
        Transformer.toNative(model),
        Optimizer.toNative(optimizer),
        iteration,
        state,
      ),
    )
  },

  /**
   * Reads the checkpoint folder `path` into a model of the same shape and, if given, its optimizer.
   *
   * @returns the iteration passed to `save`.
   * @throws KindlingError `ERR_NOT_FOUND`, `ERR_INVALID_CHECKPOINT` if it is damaged,
   * `ERR_CHECKPOINT_MISMATCH` naming every tensor that differs. The model is then unchanged.
   */
  async load(path: string, model: Transformer, optimizer?: Optimizer): Promise<number> {
    return settle(async () =>
      native.loadCheckpoint(
        path,
        Transformer.toNative(model),
        optimizer && Optimizer.toNative(optimizer),
      ),
    )
  },
} as const

/** @throws KindlingError `ERR_INVALID_ARGUMENT` for what JSON cannot hold. */
function jsonOf(extra: object): string {
  try {
    return JSON.stringify(extra)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new KindlingError('ERR_INVALID_ARGUMENT', `extra cannot be written as JSON: ${reason}`)
  }
}
