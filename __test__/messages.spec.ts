/** Messages of errors: they name the option, the value and the number that were wrong. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { z } from 'zod'
import { Transformer } from '../src'
import { problemsIn } from '../src/options'
import { evaluationStore } from '../src/store-paths'
import { failed, kindling } from './command-line'
import { TINY, temporaryFolder } from './helpers'

const schema = z.strictObject({
  lr: z.number().min(0),
  format: z.enum(['text', 'jsonl']).optional(),
  device: z.string().regex(/^cpu$/, 'must be cpu').optional(),
  rates: z.array(z.number()).optional(),
})

test('a wrong value is named, with what it must be and the nearest choice', (t) => {
  const problems = (value: unknown): string => {
    const { error } = schema.safeParse(value, { reportInput: true })
    return problemsIn(error!, schema)
  }
  t.is(problems({ lr: 'fast' }), 'lr must be a number, not fast')
  t.is(problems({ lr: -1 }), 'lr must be at least 0, not -1')
  t.is(problems({}), 'lr must be given')
  t.is(problems({ lr: 1, device: 'tpu' }), 'device must be cpu, not tpu')
  t.is(problems({ lr: 1, rates: [1, 'x'] }), 'rates.1 must be a number, not x')
  t.is(
    problems({ lr: 1, format: 'json' }),
    'format must be one of text, jsonl, not json (did you mean jsonl?)',
  )
  t.is(problems({ lr: 1, formt: 'text' }), 'unknown option formt (did you mean format?)')
})

test('a tensor with too few numbers for its shape is said to have too few', async (t) => {
  const model = new Transformer(TINY)
  const state = await model.stateDict()
  const { shape } = state['final_norm.g']!
  const wrong = { ...state, 'final_norm.g': { shape, data: new Float32Array(5) } }
  await t.throwsAsync(model.loadStateDict(wrong), {
    code: 'ERR_SHAPE_MISMATCH',
    message: /final_norm\.g has 5 numbers, but its shape \[16\] has 16/,
  })
  await model.close()
})

test('eval takes the output folder of encode, whether or not it has validation tokens', (t) => {
  const folder = temporaryFolder(t)
  t.is(evaluationStore(folder), folder)
  mkdirSync(join(folder, 'train_chunks'))
  t.is(evaluationStore(folder), join(folder, 'train_chunks'))
  mkdirSync(join(folder, 'valid_chunks'))
  t.is(evaluationStore(folder), join(folder, 'valid_chunks'))
})

test('-v prints where the code is explained', async (t) => {
  const args = ['bench', 'bpe', '--file', '/nowhere/nope.txt']
  const plain = await kindling(args)
  failed(t, plain, { exit: 1, code: 'ERR_NOT_FOUND', message: /nope\.txt/ })
  const { stderr } = await kindling([...args, '-v'])
  t.true(stderr.startsWith(plain.stderr))
  t.regex(stderr.slice(plain.stderr.length), /^see docs\/errors\S*err_not_found\S*\n$/i)
})
