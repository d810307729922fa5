/** Arguments in place of flags, and suggestions for mistyped names. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { argumentsOr } from '../src/cli/output'
import { program } from '../src/cli/program'
import { nearest } from '../src/nearest'
import type { GivenOptions } from '../src/training/config'
import { resolveOptions } from '../src/training/resolve-options'
import { failed, kindling, succeed, words } from './command-line'
import { temporaryFolder, writeCorpus } from './helpers'
import { SMALL } from './small-runs'

test('a text file becomes generated text in two commands, without a flag for either', async (t) => {
  const folder = temporaryFolder(t)
  const corpus = writeCorpus(folder)
  const run = join(folder, 'run')
  const train = ['train', ...SMALL, ...words('--max-steps 2 --vocab-size 280'), '--run', run]
  const data = ['--data-dir', join(folder, 'data')]
  const { stderr } = await succeed(t, [...train, ...data, '--', corpus])
  t.true(existsSync(join(folder, 'data', 'corpus', 'train_chunks')))
  t.true(stderr.includes(`next: kindling generate ${run}`), stderr)

  const sampling = words('--max-tokens 3 --seed 1')
  const plain = (await succeed(t, ['generate', run, 'the whale', ...sampling])).stdout
  t.true(plain.startsWith('the whale'))
  const flags = ['generate', '--run', run, '--prompt', 'the whale', ...sampling]
  t.is((await succeed(t, flags)).stdout, plain)
  const same = ['generate', run, 'the whale', '--prompt', 'the whale', ...sampling]
  t.is((await succeed(t, same)).stdout, plain)
  const batch = await succeed(t, ['generate', run, 'the', 'a', ...sampling, '--json'])
  t.deepEqual(
    batch.json.map((line) => line['prompt']),
    ['the', 'a'],
  )

  const both = await kindling(['generate', run, '--run', 'other'])
  failed(t, both, { exit: 2, code: 'ERR_USAGE', message: /run and --run both name a model/ })
})

test('arguments and a flag may say the same, but not two different things', async (t) => {
  t.deepEqual(argumentsOr(['a', 'b'], undefined, '--corpus'), ['a', 'b'])
  t.deepEqual(argumentsOr([], 'c', '--corpus'), 'c')
  t.deepEqual(argumentsOr(['a'], 'a', '--corpus'), ['a'])
  t.deepEqual(argumentsOr(['a', 'b'], ['a', 'b'], '--corpus'), ['a', 'b'])
  t.throws(() => argumentsOr(['a'], ['b', 'c'], '--corpus'), {
    code: 'ERR_USAGE',
    message: 'a and --corpus b c differ; give only one of them',
  })
  const args = ['train', 'a.txt', '--corpus', 'b.txt']
  const message = /a\.txt and --corpus b\.txt differ/
  failed(t, await kindling(args), { exit: 2, code: 'ERR_USAGE', message })
})

test('a mistyped flag, command, value or key is answered with the nearest name', async (t) => {
  for (const [args, message] of [
    ['train --max-step 3', /unknown option '--max-step'\n\(Did you mean --max-steps\?\)/],
    ['trian', /unknown command 'trian'\n\(Did you mean train\?\)/],
    ['help tokenizer trian', /no command 'trian' \(Did you mean train\?\)/],
  ] as [string, RegExp][]) {
    await t.throwsAsync(program().parseAsync(words(args), { from: 'user' }), { message })
  }
  for (const [options, message] of [
    [{ preset: 'chr' }, /preset must be one of .*, not chr \(did you mean char\?\)/],
    [{ preset: 'huge' }, /preset must be one of [^(]*, not huge;/],
    [{ batchsize: 3 }, /unknown option batchsize \(did you mean batch_size\?\)/],
  ] as [GivenOptions, RegExp][]) {
    t.throws(() => resolveOptions(options), { code: 'ERR_USAGE', message })
  }
  const { code, stderr } = await kindling(words('train x.txt --preset chr'))
  t.is(code, 2)
  t.regex(stderr, /^ERR_USAGE: --preset must be .*\(did you mean char\?\)/)
})

test('the nearest name is a few edits away, where a swap is one edit', (t) => {
  const names = ['train', 'tokenizer', 'encode', 'eval', 'lr']
  t.is(nearest('trian', names), 'train')
  t.is(nearest('Tokeniser', names), 'tokenizer')
  t.is(nearest('decode', names), 'encode')
  t.is(nearest('nope', names), null)
  t.is(nearest('chat', names), null)
  t.is(nearest('', names), null)
})
