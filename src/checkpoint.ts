/**
 * Checkpoints: a folder with model.safetensors, optimizer.safetensors and state.json. It is written
 * under a temporary name, synced and renamed, so it is either complete or absent.
 */
import { settle } from './errors'
import { native } from './native'
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
    await settle(() =>
      native.saveCheckpoint(
        path,
        Transformer.toNative(model),
        Optimizer.toNative(optimizer),
        iteration,
        JSON.stringify(extra),
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
    return settle(() =>
      native.loadCheckpoint(
        path,
        Transformer.toNative(model),
        optimizer && Optimizer.toNative(optimizer),
      ),
    )
  },
} as const
