/** `kindling data`: describes, verifies, merges and splits token stores. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Command } from 'commander'
import { z } from 'zod'
import { existingStores } from '../../store-paths'
import { TokenStore } from '../../token-store'
import type { ReshapeOptions } from '../../token-store-options'
import { parse } from '../../training/config'
import { addExamples } from '../examples'
import { addFields } from '../flags'
import { addVerbosity } from '../help'
import { count } from '../../format'
import { withInterrupt } from '../interrupt'
import { run, usage, type Output } from '../output'
import { ByteProgress, CountProgress } from '../progress'
import { outliveOutput } from '../streams'

/**
 * Opens the store at `path`, or the training and validation stores in an output folder of `kindling
 * encode`.
 */
async function storesAt(path: string): Promise<TokenStore[]> {
  const inside = ['train_chunks', 'valid_chunks'].map((name) => join(path, name)).filter(existsSync)
  return Promise.all((inside.length > 0 ? inside : [path]).map((store) => TokenStore.open(store)))
}

async function allStoresAt(paths: readonly string[]): Promise<TokenStore[]> {
  return (await Promise.all(paths.map(storesAt))).flat()
}

function infoCommand(): Command {
  const command = new Command('info').description('describe token stores')
  command.argument(
    '<store...>',
    'output folders of `kindling encode`, _chunks folders, .npy, or .bin of uint16 ids',
  )
  addVerbosity(command)
  addExamples(command, ['kindling data info data/book'])
  return command.action(
    run(async (_, output, paths) => {
      for (const store of await allStoresAt(paths)) await describeStore(store, output)
    }),
  )
}

async function describeStore(store: TokenStore, output: Output): Promise<void> {
  const { length, bytes, chunkSize, dtype, maxId, replacedBytes, tokenizerHash } = store.metadata
  const tokenizer = await store.tokenizer()
  output.line({
    store: store.path,
    tokens: length,
    bytes,
    dtype,
    chunkSize,
    chunks: Math.ceil(length / chunkSize),
    maxId,
    replacedBytes,
    vocabSize: tokenizer?.vocabSize ?? null,
    tokenizer: tokenizer?.path ?? null,
    tokenizerHash,
  })
  const known = (value: number | string | null | undefined): string => String(value ?? 'unknown')
  const ratio = bytes === null ? '' : ` (${(bytes / length).toFixed(3)} per token)`
  const size = tokenizer ? `, vocabulary ${tokenizer.vocabSize}` : ''
  output.text(store.path)
  output.text(`  tokens      ${length} (${count(length)}) as ${dtype}, ${chunkSize} per chunk`)
  output.text(`  text        ${known(bytes)} bytes${ratio}`)
  output.text(`  largest id  ${known(maxId)}`)
  output.text(`  tokenizer   ${known(tokenizer?.path)}${size}`)
}

function verifyCommand(): Command {
  const command = new Command('verify').description('check token stores against their checksums')
  command.argument('<store...>', 'output folders of `kindling encode`, or _chunks folders')
  addVerbosity(command)
  addExamples(command, ['kindling data verify data/book'])
  return command.action(
    run(async (_, output, paths) => {
      for (const store of await allStoresAt(paths)) {
        const progress = new ByteProgress(`verifying ${store.path}`, output)
        const chunks = await withInterrupt((signal) =>
          store.verify({ signal, onProgress: (done, total) => progress.report(done, total) }),
        )
        output.clear()
        output.line({ store: store.path, tokens: store.length, chunksVerified: chunks })
        const result = chunks > 0 ? `${chunks} chunks verified` : 'no checksums to verify'
        output.text(`${store.path}: ${result}`)
      }
    }),
  )
}

const reshapeFields = {
  out: z.string().meta({ value: 'dir' }).describe('output folder'),
  chunk_size: z
    .int()
    .min(1)
    .optional()
    .describe("tokens per chunk file (default: the first store's)"),
  token_dtype: z
    .enum(['int32', 'uint16'])
    .optional()
    .describe('type of the stored ids (default: uint16 if all stores have it, else int32)'),
}

/** Runs a merge or a split with a progress line, and cancels it on Ctrl-C. */
async function reshape<T>(
  output: Output,
  flags: {
    out: string
    chunk_size?: number | undefined
    token_dtype?: 'int32' | 'uint16' | undefined
  },
  work: (options: ReshapeOptions) => Promise<T>,
): Promise<T> {
  outliveOutput()
  for (const store of existingStores(flags.out)) output.note(`${store} will be replaced`)
  const progress = new CountProgress('copying tokens', output, 'tokens')
  const { chunk_size: chunkSize, token_dtype: tokenDtype } = flags
  const result = await withInterrupt((signal) =>
    work({
      signal,
      onProgress: (done, total) => progress.report(done, total),
      ...(chunkSize === undefined ? {} : { chunkSize }),
      ...(tokenDtype === undefined ? {} : { tokenDtype }),
    }),
  )
  output.clear()
  return result
}

function mergeCommand(): Command {
  const command = new Command('merge').description('merge token stores into one')
  command.argument(
    '<store...>',
    'stores, in order; an output folder of `kindling encode` means its train_chunks',
  )
  addFields(command, reshapeFields)
  addExamples(command, [
    'kindling data merge data/web data/books --out data/all',
    'kindling data merge a_chunks b_chunks --out all_chunks',
  ])
  return command.action(
    run(async (flags, output, paths) => {
      const options = parse(z.strictObject(reshapeFields), flags)
      const stores = await Promise.all(paths.map(async (path) => (await storesAt(path))[0]!))
      const store = await reshape(output, options, (settings) =>
        TokenStore.merge(stores, options.out, settings),
      )
      output.line({ tokens: store.length, bytes: store.metadata.bytes, out: options.out })
      output.text(`${store.length} tokens from ${stores.length} stores: ${options.out}`)
    }),
  )
}

const splitFields = {
  ...reshapeFields,
  valid_fraction: z
    .number()
    .gt(0)
    .lt(1)
    .optional()
    .describe('fraction of the tokens, from the end, to use for validation'),
  at: z
    .int()
    .min(1)
    .optional()
    .describe('position of the first validation token, in place of --valid-fraction'),
}

function splitCommand(): Command {
  const command = new Command('split').description('split a token store for validation')
  command.argument('<store>', 'store; an output folder of `kindling encode` means its train_chunks')
  addFields(command, splitFields)
  addExamples(command, [
    'kindling data split data/2G_chunks --valid-fraction 0.01 --out data/2G',
    'kindling data split data/2G_chunks --at 1000 --out data/2G',
  ])
  return command.action(
    run(async (flags, output, [path]) => {
      const { valid_fraction, at, ...options } = parse(z.strictObject(splitFields), flags)
      if ((valid_fraction === undefined) === (at === undefined)) {
        throw usage('give exactly one of --valid-fraction and --at')
      }
      const store = (await storesAt(path!))[0]!
      const position = at ?? Math.floor(store.length * (1 - valid_fraction!))
      const { train, valid } = await reshape(output, options, (settings) =>
        TokenStore.split(store, position, options.out, settings),
      )
      output.line({ tokens: train.length, validTokens: valid.length, out: options.out })
      output.text(`${train.length} training, ${valid.length} validation tokens: ${options.out}`)
    }),
  )
}

export function dataCommand(): Command {
  return new Command('data')
    .description('describe, verify, merge and split token stores')
    .addCommand(infoCommand())
    .addCommand(verifyCommand())
    .addCommand(mergeCommand())
    .addCommand(splitCommand())
}
