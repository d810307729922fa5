/** `kindling bench encode` and `kindling bench bpe`: times the tokenizer. */
import { stat } from 'node:fs/promises'
import { expandFiles } from '../../corpus-files'
import { peakRssMib } from '../../system'
import { Tokenizer } from '../../tokenizer'
import { fileOperation } from '../../files'
import { round } from './engine'

/** Result of a tokenizer benchmark. */
export interface TextBenchmark {
  /** Speed of the first run, with cold caches. */
  mbPerSecond: number
  /** Speed of the fastest run. */
  mbPerSecondWarm: number
  /** Time of the first run. */
  seconds: number
  /** Tokens encoded, or entries of the trained vocabulary. */
  tokens: number
  peakRssMib: number
}

/** Times the encoding of files: once with cold caches, then twice more. */
export async function benchEncode(
  names: readonly string[],
  tokenizer: Tokenizer,
  threads: number | undefined,
): Promise<TextBenchmark> {
  const options = threads === undefined ? {} : { threads }
  const files = await expandFiles(names)
  return benchText(files, 3, async () => (await tokenizer.countTokens(files, options)).tokens)
}

/** Times the training of a tokenizer on files, once: nothing is cached between trainings. */
export async function benchBpe(
  names: readonly string[],
  vocabSize: number,
  threads: number | undefined,
): Promise<TextBenchmark> {
  const specialTokens = ['<|endoftext|>']
  const options = { vocabSize, specialTokens, ...(threads === undefined ? {} : { threads }) }
  const files = await expandFiles(names)
  return benchText(files, 1, async () => (await Tokenizer.train(files, options)).vocabSize)
}

async function benchText(
  files: readonly string[],
  repeats: number,
  work: () => Promise<number>,
): Promise<TextBenchmark> {
  let bytes = 0
  for (const file of files) bytes += (await fileOperation('read', file, () => stat(file))).size
  const times: number[] = []
  let tokens = 0
  for (let i = 0; i < repeats; i++) {
    const started = performance.now()
    tokens = await work()
    times.push((performance.now() - started) / 1000)
  }
  return {
    mbPerSecond: round(bytes / 1e6 / times[0]!, 2),
    mbPerSecondWarm: round(bytes / 1e6 / Math.min(...times), 2),
    seconds: round(times[0]!, 3),
    tokens,
    peakRssMib: Math.round(peakRssMib()),
  }
}
