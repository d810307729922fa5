/**
 * `--dry-run` of encode, import and export: it predicts what the command does, and writes nothing.
 */
import { cpSync, existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { failed, kindling, succeed } from './command-line'
import { temporaryFolder, writeCorpus } from './helpers'

const FIXTURES = join(__dirname, '../crates/kindling-core/tests/fixtures/exchange/models')

test('a dry run of encode names the stores and estimates the tokens', async (t) => {
  const folder = temporaryFolder(t)
  const corpus = writeCorpus(folder)
  const tokenizer = join(folder, 'tokenizer')
  await succeed(t, ['tokenizer', 'train', corpus, '--vocab-size', '300', '--out', tokenizer])
  const [before, out] = [readdirSync(folder), join(folder, 'data')]
  const args = ['encode', corpus, '--tokenizer', tokenizer, '--out', out, '--valid-fraction', '0.1']
  const plan = (await succeed(t, [...args, '--dry-run', '--json'])).json.at(-1)!
  t.deepEqual(readdirSync(folder), before)
  t.like(plan, { dry_run: true, files: 1, bytes: statSync(corpus).size, replaces: [] })
  t.false(plan['append_eot'])

  const { tokens } = (await succeed(t, [...args, '--json'])).json.at(-1)! as { tokens: number }
  t.true(Math.abs((plan['tokens_estimated'] as number) - tokens) <= 1)
  const writes = ['tokenizer', 'train_chunks', 'valid_chunks'].map((name) => join(out, name))
  t.deepEqual(plan['writes'], writes)
  t.deepEqual(readdirSync(out).sort(), ['tokenizer', 'train_chunks', 'valid_chunks'])
  const again = await succeed(t, [...args, '--dry-run'])
  t.regex(again.stderr, /train_chunks would be replaced/)

  const missing = await kindling(['encode', join(folder, 'none'), ...args.slice(2), '--dry-run'])
  failed(t, missing, { exit: 1, code: 'ERR_NOT_FOUND', message: /none/ })
})

test('a dry run of import and export gives the sizes of what they would write', async (t) => {
  const folder = temporaryFolder(t)
  const run = join(folder, 'run')
  const source = join(FIXTURES, 'llama-gqa')
  const importing = ['import', source, '--out', run]
  const plan = (await succeed(t, [...importing, '--dry-run', '--json'])).json.at(-1)!
  t.deepEqual(readdirSync(folder), [])
  const done = (await succeed(t, [...importing, '--json'])).json.at(-1)!
  t.like(plan, { dry_run: true, params: done['params'], vocab_size: 29, writes: [run] })
  t.is(plan['bytes'], 4 * (done['params'] as number))
  const again = await kindling([...importing, '--dry-run'])
  failed(t, again, { exit: 1, code: 'ERR_RUN_EXISTS', message: /choose another folder/ })

  for (const dtype of ['f32', 'f16']) {
    const out = join(folder, `${dtype}.safetensors`)
    const args = ['export', run, '--format', 'safetensors', '--dtype', dtype, '--out', out]
    const { json } = await succeed(t, [...args, '--dry-run', '--json'])
    t.false(existsSync(out))
    t.like(json[0], { dry_run: true, step: 0, dtype, format: 'safetensors', writes: [out] })
    await succeed(t, args)
    const header = statSync(out).size - (json[0]!['bytes'] as number)
    t.true(header > 0 && header < 4096, `${header}`)
  }
})

test('a dry run of export refuses what export refuses', async (t) => {
  const folder = temporaryFolder(t)
  const run = join(folder, 'run')
  await succeed(t, ['import', join(FIXTURES, 'qwen2'), '--out', run])
  cpSync(join(run, 'config.json'), join(folder, 'empty/config.json'))
  const refused = async (args: string[], code: string): Promise<void> => {
    const [dry, real] = await Promise.all([kindling([...args, '--dry-run']), kindling(args)])
    t.regex(dry.stderr, new RegExp(`^${code}: `))
    t.is(dry.stderr, real.stderr)
    t.is(dry.code, real.code)
  }
  const out = join(folder, 'out')
  await refused(['export', run, '--out', run], 'ERR_INVALID_ARGUMENT')
  await refused(['export', run, '--dtype', 'q8_0', '--out', out], 'ERR_INVALID_ARGUMENT')
  await refused(['export', run, '--format', 'gguf', '--out', out], 'ERR_NOT_FOUND')
  await refused(['export', join(folder, 'empty'), '--out', out], 'ERR_NOT_FOUND')
  t.false(existsSync(out))
})
