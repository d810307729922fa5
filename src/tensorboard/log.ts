/**
 * The event files of a run, in tensorboard/ inside its folder. Each start or resume writes a file
 * of its own. That of a resumed run takes back what earlier files say after its checkpoint.
 */
import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import type { MetricsLine } from '../training/metrics'
import { restartRecord, scalarRecord, textRecord, versionRecord } from './events'

/** TensorBoard's names for the numbers of a metrics line. */
const TAGS: readonly (readonly [keyof MetricsLine, string])[] = [
  ['loss', 'loss/train'],
  ['valLoss', 'loss/validation'],
  ['perplexity', 'loss/perplexity'],
  ['bitsPerByte', 'loss/bits_per_byte'],
  ['lr', 'optimizer/learning_rate'],
  ['gradNorm', 'optimizer/gradient_norm'],
  ['tokensPerSecond', 'speed/tokens_per_second'],
  ['mfu', 'speed/mfu'],
  ['memoryMib', 'memory/process_mib'],
  ['deviceMemoryMib', 'memory/device_mib'],
]

/** Writes event files. A run goes on without them if they cannot be written. */
export class TensorboardLog {
  readonly #path: string
  #failed = false

  /**
   * @param run - folder of the run.
   * @param firstStep - the first step to log. From it on, earlier files no longer count.
   * @param config - the run's options as JSON.
   * @param say - receives a sentence if the files cannot be written.
   */
  constructor(
    run: string,
    firstStep: number,
    config: string,
    private readonly say: (text: string) => void,
  ) {
    const wallTime = Date.now() / 1000
    const folder = join(run, 'tensorboard')
    const time = `${Math.floor(wallTime)}.${String(Math.floor((wallTime % 1) * 1000)).padStart(3, '0')}`
    this.#path = join(folder, `events.out.tfevents.${time}.${hostname()}.${process.pid}`)
    this.#try(() => {
      mkdirSync(folder, { recursive: true })
      writeFileSync(this.#path, versionRecord(wallTime))
    })
    if (firstStep > 1) this.#append(restartRecord({ wallTime, step: firstStep }))
    this.#append(textRecord({ wallTime, step: firstStep - 1 }, 'config', asCode(config)))
  }

  /** Logs a line of metrics. */
  write(line: MetricsLine): void {
    const time = { wallTime: Date.now() / 1000, step: line.step }
    const records = TAGS.flatMap(([key, name]) => {
      const value = line[key]
      return typeof value === 'number' ? [scalarRecord(time, name, value)] : []
    })
    if (line.sample !== undefined) records.push(textRecord(time, 'sample', asCode(line.sample)))
    this.#append(Buffer.concat(records))
  }

  #append(bytes: Buffer): void {
    this.#try(() => appendFileSync(this.#path, bytes))
  }

  #try(work: () => void): void {
    if (this.#failed) return
    try {
      work()
    } catch (error) {
      this.#failed = true
      const reason = error instanceof Error ? error.message : String(error)
      this.say(
        `TensorBoard logging stopped: ${reason}; the run continues, and metrics.jsonl has its metrics`,
      )
    }
  }
}

/** Formats text as Markdown that shows it verbatim. */
function asCode(text: string): string {
  return text.replace(/^/gm, '    ')
}
