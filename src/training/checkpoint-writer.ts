/**
 * Saves the checkpoints of a run. The model and its optimizer are copied, and the copy is written
 * on another thread while training goes on, one checkpoint at a time. If there is not enough memory
 * for a copy, the loop waits until the checkpoint is written. `latest` is updated once everything
 * is on disk.
 */
import { toSnakeCase } from '../case'
import { Checkpoint, saveCheckpoint, type Snapshot } from '../checkpoint'
import type { Optimizer } from '../optimizer'
import type { Transformer } from '../transformer'
import type { Retention, SavedLoop } from './run-checkpoints'
import type { RunFolder } from './run-folder'

/** What to save, where, and whom to notify. */
export interface CheckpointSource {
  folder: RunFolder
  model: Transformer
  optimizer: Optimizer
  retention: Retention
  /** Called once a checkpoint is on disk and `latest` names it. */
  onSaved: (step: number, path: string) => void
  /** Receives a sentence about an old checkpoint that cannot be removed. */
  say?: (text: string) => void
  /** Takes the copy; returns null if there is not enough memory. Default `Checkpoint.snapshot`. */
  takeSnapshot?: typeof Checkpoint.snapshot
}

/** Writes one checkpoint at a time. */
export class CheckpointWriter {
  readonly #source: CheckpointSource
  /** The write in progress; never rejects. */
  #writing: Promise<void> = Promise.resolve()
  /** The error of a failed write, until `check` throws it. */
  #failure: { error: unknown } | null = null

  constructor(source: CheckpointSource) {
    this.#source = source
  }

  /** @throws KindlingError the error of a background save that failed; each is thrown once. */
  check(): void {
    const failure = this.#failure
    this.#failure = null
    if (failure) throw failure.error
  }

  /**
   * Saves the state after `step`. Waits for the previous save; returns once the state is copied.
   *
   * @throws KindlingError `ERR_RUN_LOCKED`, and the error of an earlier save.
   */
  async save(step: number, state: SavedLoop): Promise<void> {
    await this.finish()
    const { folder, model, optimizer, takeSnapshot = Checkpoint.snapshot } = this.#source
    folder.verifyLock()
    const snapshot = await takeSnapshot(model, optimizer, step, extraOf(state))
    if (snapshot === null) return this.saveAndWait(step, state)
    this.#writing = this.#write(snapshot, step, state.best?.step ?? null).catch(
      (error: unknown) => {
        this.#failure = { error }
      },
    )
  }

  /**
   * Saves the state after `step` without a copy; returns once it is on disk.
   *
   * @throws KindlingError as `save`, and the errors of `Checkpoint.save`.
   */
  async saveAndWait(step: number, state: SavedLoop): Promise<void> {
    await this.finish()
    const { folder, model, optimizer } = this.#source
    folder.verifyLock()
    await saveCheckpoint(folder.checkpoints.path(step), model, optimizer, step, extraOf(state))
    await this.#commit(step, state.best?.step ?? null)
  }

  /**
   * Waits for the save in progress.
   *
   * @throws KindlingError if it failed.
   */
  async finish(): Promise<void> {
    await this.#writing
    this.check()
  }

  /** Waits for the save in progress, whether it fails or not. */
  async settle(): Promise<void> {
    await this.#writing
  }

  async #write(snapshot: Snapshot, step: number, best: number | null): Promise<void> {
    await snapshot.write(this.#source.folder.checkpoints.path(step), { force: true })
    this.#source.folder.verifyLock()
    await this.#commit(step, best)
  }

  /** Makes a written checkpoint the latest, and removes old ones. */
  async #commit(step: number, best: number | null): Promise<void> {
    const { folder, retention, onSaved, say } = this.#source
    await folder.syncMetrics()
    await folder.checkpoints.setLatest(step, { ...retention, best }, say)
    onSaved(step, folder.checkpoints.path(step))
  }
}

function extraOf(state: SavedLoop): Record<string, unknown> {
  return toSnakeCase({ ...state })
}
