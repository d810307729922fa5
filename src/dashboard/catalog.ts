/**
 * The runs that a dashboard shows, each with an id that stays the same. The folders are scanned
 * repeatedly while a page is open. The metrics of a run are read only once a page asks for them.
 */
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { findRuns, isRunFolder } from '../runs/find'
import { inspectRun, type InspectedRun } from '../runs/inspect'
import { MetricsReader } from '../runs/metrics-reader'

/** Maximum number of runs whose metrics are held in memory; the least recently used goes first. */
const MAX_READERS = 16

/** A run of the catalog. */
export interface CatalogRun extends InspectedRun {
  id: number
}

export class Catalog {
  readonly #ids = new Map<string, number>()
  readonly #readers = new Map<number, MetricsReader>()
  #runs: CatalogRun[] = []
  /** True while the metrics are polled because a page is open. */
  isFollowed = false

  /** @param places - run folders, or folders that hold runs now or later. */
  constructor(readonly places: readonly string[]) {}

  get runs(): readonly CatalogRun[] {
    return this.#runs
  }

  /** Scans the folders and inspects every run. */
  async refresh(): Promise<void> {
    const paths = this.places.flatMap((place) => {
      if (!existsSync(place)) return []
      return isRunFolder(place) ? [place] : findRuns(place)
    })
    const found: CatalogRun[] = []
    for (const path of new Set(paths.map((path) => resolve(path)))) {
      if (!this.#ids.has(path)) this.#ids.set(path, this.#ids.size)
      found.push({ id: this.#ids.get(path)!, ...(await inspectRun(path)) })
    }
    this.#runs = found
  }

  find(id: number): CatalogRun | undefined {
    return this.#runs.find((run) => run.id === id)
  }

  /** Returns the reader of a run's metrics, which `poll` keeps up to date from now on. */
  open(run: CatalogRun): MetricsReader {
    let reader = this.#readers.get(run.id)
    this.#readers.delete(run.id)
    reader ??= new MetricsReader(join(run.info.path, 'metrics.jsonl'))
    this.#readers.set(run.id, reader)
    const [oldest] = this.#readers.keys()
    if (this.#readers.size > MAX_READERS && oldest !== undefined) this.#readers.delete(oldest)
    return reader
  }

  /** Returns the reader of a run's metrics if it is open. */
  reader(id: number): MetricsReader | undefined {
    return this.#readers.get(id)
  }

  /** Reads what is new in the metrics of all open readers. */
  async poll(): Promise<void> {
    await Promise.all([...this.#readers.values()].map((reader) => reader.poll()))
  }
}
