/**
 * Checkpoints: a folder with model.safetensors, optimizer.safetensors and state.json, written beside its final place,
 * synced and renamed, so that a folder of that name is always whole.
 */
import { settle } from './errors'
import { native } from './native'
import { Optimizer } from './optimizer'
import { Transformer } from './transformer'

/** Saving and loading a model with its optimizer. */
export const Checkpoint = {
  /**
   * Writes the folder `path`, replacing one that is there.
   *
   * @param iteration - updates done so far; `load` gives it back.
   * @param extra - anything JSON can hold, kept in state.json.
   * @throws KindlingError `ERR_DISK_FULL`, `ERR_NOT_WRITABLE`, `ERR_IO`; nothing half-written is left at `path`.
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
   * Reads the folder `path` into a model of the same shape and, if given, its optimizer.
   *
   * @returns the iteration it was saved with.
   * @throws KindlingError `ERR_NOT_FOUND`, `ERR_INVALID_CHECKPOINT`, `ERR_CHECKPOINT_MISMATCH` (naming every difference).
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
