/**
 * The losses of a run between two lines of metrics. The CPU's are read at every update. A GPU works ahead of the loop: its
 * losses add up on it, and reading them is what waits.
 */
import { KindlingError } from '../errors'
import type { LoopState, RunFolder } from './run-folder'
import type { Transformer } from '../transformer'

export class TrainingLosses {
  /** Loss of the update that was read last; the mean where several were read at once. */
  latest = NaN
  #unread = 0
  readonly #model: Transformer
  readonly #folder: RunFolder
  readonly #state: LoopState

  constructor(model: Transformer, folder: RunFolder, state: LoopState) {
    this.#model = model
    this.#folder = folder
    this.#state = state
  }

  /**
   * After the batches of an update.
   *
   * @param loss - null where it was not read.
   * @throws KindlingError `ERR_NON_FINITE`.
   */
  add(loss: number | null, step: number): void {
    if (loss === null) this.#unread += 1
    else this.#count(loss, 1, step)
  }

  /** Reads what was not read up to `step`. */
  async read(step: number): Promise<void> {
    if (this.#unread === 0) return
    this.#count(await this.#model.takeLoss(), this.#unread, step)
    this.#unread = 0
  }

  #count(loss: number, updates: number, step: number): void {
    if (!Number.isFinite(loss)) {
      throw new KindlingError(
        'ERR_NON_FINITE',
        `the loss is not finite at step ${step}; lower the learning rate or clip gradients (max_norm); ${this.#folder.path} keeps its checkpoints`,
      )
    }
    this.latest = loss
    this.#state.loss_sum += updates * loss
    this.#state.loss_count += updates
  }
}
