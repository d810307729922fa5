/**
 * Reads a metrics.jsonl while it grows. Each call reads what was added after the byte offset of the
 * last one. A file that was cut back or replaced, as a resume does, is read again from its start.
 */
import { open, type FileHandle } from 'node:fs/promises'
import { READ_ANY_KIND } from '../files'
import { MetricsColumns, type ParsedLine } from './metrics-columns'

/** Bytes read at once; the event loop runs between two blocks. */
const BLOCK_BYTES = 1 << 19
/** Longest line that is read; longer ones are skipped. */
const MAX_LINE_BYTES = 1 << 24
/** Bytes before the offset that are compared: if they differ, the file was cut back or replaced. */
const FINGERPRINT_BYTES = 256
/** Number of newest samples whose positions in the file are kept. */
const MAX_SAMPLES = 10_000
const NEWLINE = 10

/** Text that a run generated. */
export interface Sample {
  step: number
  text: string
}

interface SamplePlace {
  step: number
  offset: number
  length: number
}

/** The metrics of one run. */
export class MetricsReader {
  readonly columns = new MetricsColumns()
  /** Incremented whenever lines that were read are dropped or replaced. */
  generation = 0
  /** Lines that could not be read. */
  damagedLines = 0
  /** All lines of the file have been read at least once. */
  isComplete = false
  #samples: SamplePlace[] = []
  #offset = 0
  #fingerprint: Buffer = Buffer.alloc(0)
  #seen = ''
  #reading: Promise<boolean> | null = null

  constructor(readonly path: string) {}

  /** Number of samples. */
  get numSamples(): number {
    return this.#samples.length
  }

  /**
   * Reads what is new. Concurrent calls share one read.
   *
   * @returns whether anything has changed. A missing or unreadable file has no lines.
   */
  async poll(): Promise<boolean> {
    this.#reading ??= this.#poll().finally(() => (this.#reading = null))
    return this.#reading
  }

  async #poll(): Promise<boolean> {
    let file: FileHandle
    try {
      file = await open(this.path, READ_ANY_KIND)
    } catch {
      const had = this.#offset > 0
      if (had) this.#reset()
      this.isComplete = true
      return had
    }
    try {
      return await this.#readNew(file)
    } catch {
      return false
    } finally {
      await file.close()
      this.isComplete = true
    }
  }

  async #readNew(file: FileHandle): Promise<boolean> {
    const status = await file.stat()
    if (!status.isFile()) return false
    const { size, ino, mtimeMs } = status
    const seen = `${size} ${ino} ${mtimeMs}`
    if (seen === this.#seen) return false
    const isSame = size >= this.#offset && (await this.#isContinued(file))
    if (!isSame) this.#reset()
    const before = this.#offset
    await this.#readFrom(file)
    this.#seen = seen
    return !isSame || this.#offset > before
  }

  #reset(): void {
    this.columns.truncate(0)
    this.#samples = []
    this.#offset = 0
    this.#fingerprint = Buffer.alloc(0)
    this.#seen = ''
    this.damagedLines = 0
    this.generation++
  }

  /** Returns whether the bytes before the offset are still the same. */
  async #isContinued(file: FileHandle): Promise<boolean> {
    const { length } = this.#fingerprint
    const bytes = await readAt(file, this.#offset - length, length)
    return bytes.equals(this.#fingerprint)
  }

  async #readFrom(file: FileHandle): Promise<void> {
    let wanted = BLOCK_BYTES
    for (;;) {
      const bytes = await readAt(file, this.#offset, wanted)
      const end = bytes.lastIndexOf(NEWLINE) + 1
      if (end > 0) {
        this.#takeLines(bytes.subarray(0, end))
        const kept = bytes.subarray(Math.max(0, end - FINGERPRINT_BYTES), end)
        this.#fingerprint = Buffer.from(kept)
        this.#offset += end
        wanted = BLOCK_BYTES
      } else if (bytes.length === wanted) {
        if (wanted >= MAX_LINE_BYTES) this.#skip(bytes)
        else wanted *= 2
      } else return
      if (bytes.length < wanted && end > 0) return
    }
  }

  /** Skips a part of a line that is too long. */
  #skip(bytes: Buffer): void {
    this.damagedLines++
    this.#offset += bytes.length
    this.#fingerprint = Buffer.from(bytes.subarray(-FINGERPRINT_BYTES))
  }

  #takeLines(bytes: Buffer): void {
    let start = 0
    while (start < bytes.length) {
      const end = bytes.indexOf(NEWLINE, start)
      // Only numbers are used here, so the text of a sample need not be decoded as UTF-8.
      const line = parseLine(bytes.toString('latin1', start, end))
      const steps = this.columns.length
      if (line === null || !this.columns.push(line)) this.damagedLines++
      else {
        if (this.columns.length <= steps) this.#takeBackSamples()
        if (typeof line['sample'] === 'string') {
          const place = { offset: this.#offset + start, length: end - start }
          this.#samples.push({ step: this.columns.last('step'), ...place })
          if (this.#samples.length > MAX_SAMPLES) this.#samples.shift()
        }
      }
      start = end + 1
    }
  }

  /** Forgets the samples of lines that a later line replaced. */
  #takeBackSamples(): void {
    const step = this.columns.last('step')
    this.#samples = this.#samples.filter((sample) => sample.step < step)
    this.generation++
  }

  /** Reads the newest samples of steps before `before`, newest first. */
  async samples(limit: number, before = Infinity): Promise<Sample[]> {
    const places = this.#samples.filter(({ step }) => step < before).slice(-limit)
    const samples: Sample[] = []
    let file: FileHandle
    try {
      file = await open(this.path)
    } catch {
      return []
    }
    try {
      for (const { step, offset, length } of places.toReversed()) {
        const line = parseLine((await readAt(file, offset, length)).toString('utf8'))
        const text = line?.['sample']
        if (typeof text === 'string' && line?.['step'] === step) samples.push({ step, text })
      }
    } finally {
      await file.close()
    }
    return samples
  }
}

function parseLine(text: string): ParsedLine | null {
  try {
    const line: unknown = JSON.parse(text)
    return typeof line === 'object' && line !== null ? (line as ParsedLine) : null
  } catch {
    return null
  }
}

/** Reads up to `length` bytes at `offset`; fewer at the end of the file. */
async function readAt(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(length)
  let done = 0
  while (done < length) {
    const { bytesRead } = await file.read(bytes, done, length - done, offset + done)
    if (bytesRead === 0) break
    done += bytesRead
  }
  return bytes.subarray(0, done)
}
