/** Helpers shared by the specs: temporary folders, a small corpus, a small model. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { KindlingError } from '../src'

/** Creates a temporary folder, removed at the end of the test. */
export function temporaryFolder(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'kindling-test-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** Writes a repetitive text of a few thousand words to `folder` and returns its path. */
export function writeCorpus(folder: string): string {
  const words =
    'the whale sea ship captain old man said and of in a to white mast sailed storm'.split(' ')
  let state = 7
  const text = Array.from({ length: 4_000 }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return words[state % words.length]
  }).join(' ')
  const path = join(folder, 'corpus.txt')
  writeFileSync(path, text)
  return path
}

/** Options of a model small enough for fast tests. */
export const TINY = {
  vocabSize: 64,
  dModel: 16,
  numHeads: 4,
  dFf: 24,
  numLayers: 2,
  maxSeqLength: 16,
  threads: 1,
}

/** Returns a batch whose rows count upwards. */
export function countingBatch(batchSize = 2, seqLength = 8): { x: number[][]; y: number[][] } {
  const row = (first: number): number[] =>
    Array.from({ length: seqLength }, (_, i) => (first + i) % 64)
  const firsts = Array.from({ length: batchSize }, (_, i) => 5 * i)
  return { x: firsts.map((first) => row(first)), y: firsts.map((first) => row(first + 1)) }
}

/** Asserts that `work` rejects with a KindlingError of code `code`; returns its message. */
export async function rejectsWith(
  t: ExecutionContext,
  code: string,
  work: () => Promise<unknown>,
): Promise<string> {
  const error = await t.throwsAsync(async () => work(), { instanceOf: KindlingError })
  t.is((error as KindlingError | undefined)?.code, code)
  return error?.message ?? ''
}
