/** `kindling data`: look at token stores, check them, put them together, cut them in two. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Command } from 'commander'
import { z } from 'zod'
import { parse } from '../../training/config'
import { count } from '../logger'
import { TokenStore } from '../../token-store'
import { ByteProgress } from '../progress'
import { addFields, addJson } from '../flags'
import { withInterrupt } from '../interrupt'
import { run, usage, type Output } from '../output'

/** The stores that a path stands for: a store, or a folder of `kindling encode` with its two. */
async function storesIn(path: string): Promise<TokenStore[]> {
  const inside = ['train_chunks', 'valid_chunks'].map((name) => join(path, name)).filter(existsSync)
  return Promise.all((inside.length > 0 ? inside : [path]).map((store) => TokenStore.open(store)))
}

async function allStoresIn(paths: readonly string[]): Promise<TokenStore[]> {
  return (await Promise.all(paths.map(storesIn))).flat()
}

function infoCommand(): Command {
  const command = new Command('info').description('what token stores are')
  command.argument(
    '<store...>',
    'folders of `kindling encode`, _chunks folders, .npy or .bin files',
  )
  addJson(command).addHelpText('after', '\nExamples:\n  kindling data info data/book')
  return command.action(
    run(async (_, output, paths) => {
      for (const store of await allStoresIn(paths)) {
        const { length, bytes, chunkSize, dtype, maxId, replacedBytes, tokenizerHash } =
          store.metadata
        const tokenizer = await store.tokenizer()
        output.line({
          store: store.path,
          tokens: length,
          bytes,
          dtype,
          chunk_size: chunkSize,
          chunks: Math.ceil(length / chunkSize),
          max_id: maxId,
          replaced_bytes: replacedBytes,
          vocab_size: tokenizer?.vocabSize ?? null,
          tokenizer: tokenizer?.path ?? null,
          tokenizer_hash: tokenizerHash,
        })
        const unknown = (value: number | string | null | undefined): string =>
          String(value ?? 'unknown')
        output.text(store.path)
        output.text(`  tokens      ${length} (${count(length)}) of ${dtype}, ${chunkSize} a chunk`)
        output.text(
          `  text        ${unknown(bytes)} bytes${bytes === null ? '' : ` (${(bytes / length).toFixed(3)} a token)`}`,
        )
        output.text(`  largest id  ${unknown(maxId)}`)
        output.text(
          `  tokenizer   ${unknown(tokenizer?.path)}${tokenizer ? `, vocabulary ${tokenizer.vocabSize}` : ''}`,
        )
      }
    }),
  )
}

function verifyCommand(): Command {
  const command = new Command('verify').description(
    'compare every byte of token stores with its checksum',
  )
  command.argument('<store...>', 'folders of `kindling encode`, or _chunks folders')
  addJson(command).addHelpText('after', '\nExamples:\n  kindling data verify data/book')
  return command.action(
    run(async (_, output, paths) => {
      for (const store of await allStoresIn(paths)) {
        const progress = new ByteProgress(`verifying ${store.path}`, output)
        const chunks = await withInterrupt((signal) =>
          store.verify({ signal, onProgress: (done, total) => progress.report(done, total) }),
        )
        output.clear()
        output.line({ store: store.path, tokens: store.length, chunks_verified: chunks })
        const found =
          chunks > 0 ? `${chunks} chunks are as they were written` : 'has no checksums to compare'
        output.text(`${store.path}: ${found}`)
      }
    }),
  )
}

const reshapeFields = {
  out: z.string().describe('folder to write'),
  chunk_size: z
    .int()
    .min(1)
    .optional()
    .describe('tokens of a chunk file (default: as in the first store)'),
  token_dtype: z
    .enum(['int32', 'uint16'])
    .optional()
    .describe('integers of the chunk files (default: uint16 if all stores have it, else int32)'),
}

/** Shows that tokens are being copied, and lets Ctrl-C end it. */
async function copying<T>(
  output: Output,
  options: { chunk_size?: number | undefined; token_dtype?: 'int32' | 'uint16' | undefined },
  work: (settings: Parameters<typeof TokenStore.merge>[2]) => Promise<T>,
): Promise<T> {
  const onProgress = (done: number, total: number): void =>
    output.progress(`copying: ${count(done)} of ${count(total)} tokens`)
  const { chunk_size: chunkSize, token_dtype: tokenDtype } = options
  const made = await withInterrupt((signal) =>
    work({
      signal,
      onProgress,
      ...(chunkSize === undefined ? {} : { chunkSize }),
      ...(tokenDtype === undefined ? {} : { tokenDtype }),
    }),
  )
  output.clear()
  return made
}

function mergeCommand(): Command {
  const command = new Command('merge').description('write the tokens of several stores to one')
  command.argument(
    '<store...>',
    'stores, in order; a folder of `kindling encode` stands for its train_chunks',
  )
  addFields(command, reshapeFields).addHelpText(
    'after',
    '\nExamples:\n  kindling data merge data/web data/books --out data/all\n  kindling data merge a_chunks b_chunks --out all_chunks',
  )
  return command.action(
    run(async (flags, output, paths) => {
      const options = parse(z.strictObject(reshapeFields), flags)
      const stores = await Promise.all(paths.map(async (path) => (await storesIn(path))[0]!))
      const store = await copying(output, options, (settings) =>
        TokenStore.merge(stores, options.out, settings),
      )
      output.line({ tokens: store.length, bytes: store.metadata.bytes, out: options.out })
      output.text(`${store.length} tokens of ${stores.length} stores: ${options.out}`)
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
    .describe('share of the tokens, from the end, for validation'),
  at: z.int().min(1).optional().describe('the first token for validation, in place of a share'),
}

function splitCommand(): Command {
  const command = new Command('split').description(
    'cut a store into training and validation tokens',
  )
  command.argument('<store>', 'store; a folder of `kindling encode` stands for its train_chunks')
  addFields(command, splitFields).addHelpText(
    'after',
    '\nExamples:\n  kindling data split data/2G_chunks --valid-fraction 0.01 --out data/2G',
  )
  return command.action(
    run(async (flags, output, [path]) => {
      const { valid_fraction, at, ...options } = parse(z.strictObject(splitFields), flags)
      if ((valid_fraction === undefined) === (at === undefined)) {
        throw usage('give either --valid-fraction or --at')
      }
      const store = (await storesIn(path!))[0]!
      const place = at ?? Math.floor(store.length * (1 - valid_fraction!))
      const { train, valid } = await copying(output, options, (settings) =>
        TokenStore.split(store, place, options.out, settings),
      )
      output.line({ tokens: train.length, valid_tokens: valid.length, out: options.out })
      output.text(`${train.length} and ${valid.length} tokens: ${options.out}`)
    }),
  )
}

export function dataCommand(): Command {
  return new Command('data')
    .description('look at token stores, check, merge and split them')
    .addCommand(infoCommand())
    .addCommand(verifyCommand())
    .addCommand(mergeCommand())
    .addCommand(splitCommand())
}
