/** Small training runs on the command line. */
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { succeed, words } from './command-line'
import { temporaryFolder, writeCorpus } from './helpers'

/** Flags of a model that trains in a moment. */
export const SMALL = [
  ...words('--d-model 16 --num-heads 2 --d-ff 24 --num-layers 1 --max-seq-length 16'),
  ...words('--seq-length 16 --batch-size 4 --lr 1e-2 --threads 1'),
]

/** An encoded corpus, and the flags of a small model to train on it. */
export interface EncodedCorpus {
  folder: string
  data: string
  flags: string[]
}

/** Trains a tokenizer and encodes a corpus in a temporary folder. */
export async function encodeCorpus(t: ExecutionContext): Promise<EncodedCorpus> {
  const folder = temporaryFolder(t)
  const corpus = writeCorpus(folder)
  const tokenizer = join(folder, 'tokenizer')
  const data = join(folder, 'data')
  const train = ['tokenizer', 'train', corpus, '--out', tokenizer, '--json']
  const trained = await succeed(t, [...train, ...words('--vocab-size 280')])
  t.deepEqual(Object.keys(trained.json.at(-1)!), words('vocab_size merges seconds out'))
  const encode = ['encode', corpus, '--tokenizer', tokenizer, '--out', data, '--json']
  const encoded = await succeed(t, [...encode, ...words('--valid-fraction 0.1')])
  t.deepEqual(Object.keys(encoded.json.at(-1)!), words('tokens bytes seconds out'))
  return { folder, data, flags: ['--data', data, ...SMALL] }
}
