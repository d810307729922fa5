/** `kindling train --dry-run`: the plan matches the run, and nothing is left on the disk. */
import { mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { Trainer } from '../src'
import { dryRun } from '../src/training/dry-run'
import { fromCamelCase, resolveOptions } from '../src/training/resolve-options'
import type { RunConfig } from '../src/training/run-config'
import { kindling } from './command-line'
import { temporaryFolder, writeCorpus } from './helpers'

const MODEL = {
  ...{ dModel: 16, numHeads: 2, dFf: 24, numLayers: 1, maxSeqLength: 16, seqLength: 16 },
  ...{ vocabSize: 280, batchSize: 4, maxSteps: 3, threads: 1, evalTokens: 64, sampleInterval: 0 },
}
const report = { message: () => {}, progress: () => {} }

/** Returns the configuration of a run without the paths of its data. */
function withoutPlaces({ data: _data, ...config }: RunConfig): Partial<RunConfig> {
  return config
}

test.serial('a dry run plans what the run then does, and leaves nothing behind', async (t) => {
  const folder = temporaryFolder(t)
  const corpus = writeCorpus(folder)
  const [run, dataDir] = [join(folder, 'run'), join(folder, 'data')]
  const options = { ...MODEL, corpus, dataDir, run }
  const resolved = resolveOptions(fromCamelCase(options))
  const temporary = join(folder, 'temporary')
  mkdirSync(temporary)
  process.env['TMPDIR'] = temporary

  const plan = await dryRun(resolved, report)
  t.deepEqual(readdirSync(folder), ['corpus.txt', 'temporary'])
  t.deepEqual(readdirSync(temporary), [])
  delete process.env['TMPDIR']
  const files = ['config.json', 'metrics.jsonl', 'checkpoints/step-00000003', 'tokenizer']
  t.deepEqual(plan.writes, [join(dataDir, 'corpus'), ...files.map((name) => join(run, name))])
  t.is(plan.steps, 3)
  t.is(plan.tokensPerStep, 64)
  t.true(plan.peakBytes > 0 && plan.seconds > 0)

  const trainer = new Trainer(options)
  trainer.on('start', (config, numParameters) => {
    t.is(numParameters, plan.params)
    t.deepEqual(withoutPlaces(config), withoutPlaces(plan.config))
  })
  await trainer.run()
  const made = readdirSync(run)
  t.true(files.every((name) => made.includes(name.split('/')[0]!)))
  await t.throwsAsync(dryRun(resolved, report), { code: 'ERR_RUN_EXISTS' })

  const resumed = await dryRun(resolveOptions({ run, resume: true }), report)
  t.is(resumed.fromStep, 3)
  t.is(resumed.params, plan.params)
  t.deepEqual(resumed.tokens, plan.tokens)
  // The corpus is encoded by now, so its stores would not be written again.
  const second = await dryRun(
    { ...resolved, options: { ...resolved.options, run: `${run}2` } },
    report,
  )
  t.false(second.writes.includes(join(dataDir, 'corpus')))
})

test.serial('train --dry-run --json prints one object and exits with 0', async (t) => {
  const folder = temporaryFolder(t)
  const corpus = writeCorpus(folder)
  const args = ['train', corpus, '--data-dir', join(folder, 'data'), '--dry-run', '--json']
  const { code, json } = await kindling(args)
  t.is(code, 0)
  t.is(json.length, 1)
  const plan = json[0]!
  t.is(plan['dry_run'], true)
  for (const name of ['params', 'tokens', 'steps', 'peak_bytes', 'seconds']) {
    t.is(typeof plan[name], 'number', name)
  }
  t.deepEqual(readdirSync(folder), ['corpus.txt'])
})
