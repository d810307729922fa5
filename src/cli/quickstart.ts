/**
 * The main job on the embedded text: a tokenizer, a token store, a small model trained for about a minute, a sample
 * before and after, and where everything is.
 */
import { join } from 'node:path'
import { resolveOptions } from '../training/config'
import { generate } from '../generate'
import { RunFolder, loadRun } from '../training/run-folder'
import { TokenStore } from '../token-store'
import { Tokenizer } from '../tokenizer'
import { Trainer } from '../training/trainer'
import { Transformer } from '../transformer'

/** How the quickstart runs. */
export interface QuickstartOptions {
  /** Folder for everything it writes. */
  dir: string
  /** Seconds of training, about. */
  seconds: number
  device: string
  /** A sentence for people. */
  say: (text: string) => void
  /** Called with the trainer before it runs. */
  watch: (trainer: Trainer) => void
  signal: AbortSignal
}

/** What it came to. */
export interface QuickstartSummary {
  val_loss: number | null
  /** Entropy of single tokens in nats: the loss of knowing only how frequent each token is. */
  unigram_entropy: number
  sample_before: string
  sample_after: string
  run: string
  steps: number
  interrupted: boolean
}

const VOCAB_SIZE = 1024
const MODEL = {
  d_model: 192,
  num_heads: 6,
  d_ff: 512,
  num_layers: 4,
  max_seq_length: 128,
  seq_length: 64,
  batch_size: 16,
  theta: 10_000,
}
const PROMPT = 'The whale'
const SAMPLE = { maxTokens: 60, temperature: 0.7, topP: 0.9, seed: 1 }
/** Steps that are timed to plan the run. */
const TIMED_STEPS = 8

/** The embedded text: Moby-Dick, in the public domain. */
export function embeddedText(): string {
  return join(__dirname, '..', '..', 'assets', 'moby-dick.txt')
}

export async function quickstart(options: QuickstartOptions): Promise<QuickstartSummary> {
  const { dir, say, signal, device } = options
  const text = embeddedText()
  const data = join(dir, 'data')

  const tokenizer = await Tokenizer.train([text], {
    vocabSize: VOCAB_SIZE,
    specialTokens: ['<|endoftext|>'],
    signal,
  })
  const { tokens, bytes } = await TokenStore.encodeFiles([text], tokenizer, data, {
    validFraction: 0.05,
    signal,
  })
  const store = await TokenStore.open(join(data, 'train_chunks'))
  const entropy = await store.tokenEntropy(VOCAB_SIZE)
  say(`Moby-Dick: ${bytes} bytes became ${tokens} tokens of a vocabulary of ${tokenizer.vocabSize}`)
  say(`guessing by frequency alone costs ${entropy.toFixed(3)} nats a token`)

  const steps = await plan(store, options)
  const run = await freeRun(dir)
  const trainer = new Trainer(
    resolveOptions({
      ...MODEL,
      data,
      run,
      device,
      max_steps: steps,
      lr: 3e-3,
      lr_min: 3e-4,
      warmup_ratio: 0.05,
      warmfix_ratio: 1,
      weight_decay: 0.1,
      decay: 'matrices',
      betas: [0.9, 0.99],
      log_interval: Math.max(1, Math.floor(steps / 8)),
      eval_interval: Math.max(1, Math.floor(steps / 4)),
      save_interval: 0,
      sample_interval: 0,
    }),
  )
  const before = await sampleBefore(tokenizer, device)
  say(`before training: ${before}`)
  options.watch(trainer)
  const summary = await trainer.run({ signal })
  const after = await sampleAfter(run, device)
  return {
    val_loss: summary.val_loss,
    unigram_entropy: entropy,
    sample_before: before,
    sample_after: after,
    run,
    steps: summary.steps,
    interrupted: summary.interrupted,
  }
}

/** Steps that fit into the seconds, by timing a few. */
async function plan(store: TokenStore, { seconds, device }: QuickstartOptions): Promise<number> {
  const { AdamW } = await import('../optimizer.js')
  const model = newModel(device)
  const optimizer = new AdamW(model)
  const times: number[] = []
  for (let step = 1; step <= TIMED_STEPS; step++) {
    const started = performance.now()
    const { batch_size: batchSize, seq_length: seqLength } = MODEL
    await model.forwardBackward(store.batch({ batchSize, seqLength, step }))
    await optimizer.clipGradNorm(1)
    await optimizer.step({ lr: 0 })
    times.push(performance.now() - started)
  }
  await optimizer.close()
  await model.close()
  const typical = times.sort((a, b) => a - b)[TIMED_STEPS >> 1]!
  return Math.max(20, Math.floor((seconds * 1000) / typical))
}

function newModel(device: string): Transformer {
  return new Transformer({
    vocabSize: VOCAB_SIZE,
    dModel: MODEL.d_model,
    numHeads: MODEL.num_heads,
    dFf: MODEL.d_ff,
    numLayers: MODEL.num_layers,
    maxSeqLength: MODEL.max_seq_length,
    theta: MODEL.theta,
    device,
  })
}

async function sampleBefore(tokenizer: Tokenizer, device: string): Promise<string> {
  const model = newModel(device)
  try {
    return await textOf(model, tokenizer)
  } finally {
    await model.close()
  }
}

async function sampleAfter(run: string, device: string): Promise<string> {
  const { model, tokenizer } = await loadRun({ run, device })
  try {
    return await textOf(model, tokenizer!)
  } finally {
    await model.close()
  }
}

async function textOf(model: Transformer, tokenizer: Tokenizer): Promise<string> {
  let text = ''
  for await (const piece of generate(model, tokenizer, PROMPT, SAMPLE)) text += piece
  return text.replace(/\s+/g, ' ').trim()
}

/** A folder for the run that is not there yet. */
async function freeRun(dir: string): Promise<string> {
  for (let n = 1; ; n++) {
    const path = join(dir, 'runs', n === 1 ? 'moby-dick' : `moby-dick-${n}`)
    if (!new RunFolder(path).exists) return path
  }
}
