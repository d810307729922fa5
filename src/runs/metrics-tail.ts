/** Reads a metrics.jsonl backwards, to find its last values without reading a long file. */
import { open } from 'node:fs/promises'
import { READ_ANY_KIND } from '../files'

const BLOCK_BYTES = 1 << 16
/** Maximum number of bytes searched for the last evaluation. */
const MAX_BYTES = 1 << 23

/** The last values of a run; null where there is none. */
export interface LastMetrics {
  step: number | null
  loss: number | null
  valLoss: number | null
  tokens: number | null
  tokensPerSecond: number | null
  elapsedS: number | null
}

/** Reads the last values. A missing, empty or unreadable file has none. */
export async function readLastMetrics(path: string): Promise<LastMetrics> {
  const last: LastMetrics = {
    step: null,
    loss: null,
    valLoss: null,
    tokens: null,
    tokensPerSecond: null,
    elapsedS: null,
  }
  try {
    for await (const line of linesBackwards(path)) {
      if (last.step === null) {
        const step = numberOf(line['step'])
        if (step === null) continue
        Object.assign(last, {
          step,
          loss: numberOf(line['loss']),
          tokens: numberOf(line['tokens']),
          tokensPerSecond: numberOf(line['tokens_per_second']),
          elapsedS: numberOf(line['elapsed_s']),
        })
      }
      last.valLoss = numberOf(line['val_loss'])
      if (last.valLoss !== null) break
    }
  } catch {
    // Keep what was read so far.
  }
  return last
}

function numberOf(value: unknown): number | null {
  return typeof value === 'number' && Number.isFinite(value) ? value : null
}

/** Yields the complete lines that are JSON objects, last one first. */
async function* linesBackwards(path: string): AsyncGenerator<Record<string, unknown>> {
  const file = await open(path, READ_ANY_KIND)
  try {
    const { size } = await file.stat()
    const stop = Math.max(0, size - MAX_BYTES)
    let carried = Buffer.alloc(0)
    let isEnd = true
    for (let end = size; end > stop;) {
      const start = Math.max(stop, end - BLOCK_BYTES)
      const block = Buffer.alloc(end - start)
      await file.read(block, 0, block.length, start)
      let bytes = Buffer.concat([block, carried])
      if (isEnd) {
        // What follows the last line break is an incomplete line.
        const whole = bytes.lastIndexOf(10) + 1
        isEnd = whole === 0 && start > stop
        bytes = bytes.subarray(0, whole)
      }
      // The first line may begin in the preceding block.
      const first = start === 0 ? 0 : bytes.indexOf(10) + 1
      const lines = bytes.subarray(first).toString('utf8').split('\n')
      for (const text of lines.toReversed()) {
        const line = parsed(text)
        if (line !== null) yield line
      }
      carried = bytes.subarray(0, first)
      end = start
    }
  } finally {
    await file.close()
  }
}

function parsed(text: string): Record<string, unknown> | null {
  if (text === '') return null
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : null
  } catch {
    return null
  }
}
