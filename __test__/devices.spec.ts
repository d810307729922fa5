/** The same tests for each device. Those for CUDA are skipped if there is no such device. */
import { join } from 'node:path'
import test from 'ava'
import { native } from '../src/native'
import { AdamW, Checkpoint, account, Transformer, type TransformerOptions } from '../src'
import { TINY, countingBatch, temporaryFolder } from './helpers'

interface Trained {
  model: Transformer
  optimizer: AdamW
  losses: (number | null)[]
}

/** Trains a model of `options` for some updates of two batches each, reading the losses or not. */
async function trained(
  options: Partial<TransformerOptions>,
  updates: number,
  read = true,
): Promise<Trained> {
  const model = new Transformer({ ...TINY, seed: 3, ...options })
  const optimizer = new AdamW(model, { lr: 1e-2 })
  const losses: (number | null)[] = []
  for (let step = 0; step < updates; step++) {
    for (const length of [8, 8]) {
      const { loss } = await model.forwardBackward(countingBatch(2, length), {
        readLoss: read,
        scale: 0.5,
      })
      losses.push(loss)
    }
    await optimizer.clipGradNorm(1, { read })
    await optimizer.step()
  }
  return { model, optimizer, losses }
}

const distance = (a: number, b: number): number => Math.abs(a - b) / Math.max(1e-6, Math.abs(b))

const onCuda = native.cudaDeviceCount() === 0 ? test.skip : test

onCuda('cuda: the planned memory is within 2% of the peak of training', async (t) => {
  const wide = { ...TINY, vocabSize: 2000, dModel: 64, dFf: 172, maxSeqLength: 64 }
  const deep = { ...wide, vocabSize: 512, numLayers: 4 }
  for (const [sizes, batchSize] of [
    [wide, 2],
    [deep, 8],
  ] as const)
    for (const dtype of ['f32', 'bf16'] as const)
      for (const recompute of [false, true]) {
        const model = new Transformer({ ...sizes, dtype, recompute, device: 'cuda' })
        const optimizer = new AdamW(model, { lr: 1e-2 })
        await model.forwardBackward(countingBatch(batchSize, 64))
        await optimizer.clipGradNorm(1)
        await optimizer.step()
        const { peakBytes } = await model.deviceState()
        const { vocabSize, dModel, numHeads, dFf, numLayers } = sizes
        const asked = {
          vocabSize,
          dModel,
          numHeads,
          dFf,
          numLayers,
          context: 64,
          batchSize,
          device: 'cuda',
          dtype,
          recompute,
        } as const
        const { total } = account(asked).memory
        t.true(
          distance(total, peakBytes!) < 0.02,
          `${dtype} ${recompute}: ${total} and ${peakBytes}`,
        )
        await model.close()
      }
})

for (const device of ['cpu', 'cuda']) {
  const on = device === 'cuda' && native.cudaDeviceCount() === 0 ? test.skip : test

  on(`${device}: losses match those of the CPU in f32, with and without recompute`, async (t) => {
    const expected = await trained({ device: 'cpu' }, 5)
    for (const recompute of [false, true]) {
      const { losses } = await trained({ device, recompute }, 5)
      losses.forEach((loss, i) =>
        t.true(distance(loss!, expected.losses[i]!) < 1e-4, `${i}: ${loss}`),
      )
    }
    t.true(expected.losses.at(-1)! < expected.losses[0]!)
  })

  on(
    `${device}: unread losses have the mean of read ones, and training gives the same weights`,
    async (t) => {
      const read = await trained({ device }, 4)
      const left = await trained({ device }, 4, false)
      t.deepEqual(left.losses, Array<null>(8).fill(null))
      const mean = read.losses.reduce<number>((sum, loss) => sum + loss!, 0) / 8
      t.true(distance(await left.model.takeLoss(), mean) < 1e-5)
      t.is(await left.model.takeLoss(), 0, 'takeLoss resets the mean')
      t.deepEqual(await left.model.stateDict(), await read.model.stateDict())
    },
  )

  for (const [from, to] of device === 'cpu'
    ? [['cpu', 'cpu']]
    : [
        ['cuda', 'cpu'],
        ['cpu', 'cuda'],
        ['cuda', 'cuda'],
      ]) {
    on(`${device}: a checkpoint saved on ${from} continues identically on ${to}`, async (t) => {
      const path = join(temporaryFolder(t), 'checkpoint')
      const before = await trained({ device: from! }, 3)
      await Checkpoint.save(path, before.model, before.optimizer, 3)
      const next = await trained({ device: to!, seed: 9 }, 1)
      t.is(await Checkpoint.load(path, next.model, next.optimizer), 3)
      t.deepEqual(await next.model.stateDict(), await before.model.stateDict())
      const losses: number[] = []
      for (const { model, optimizer } of [before, next]) {
        await model.forwardBackward(countingBatch())
        await optimizer.clipGradNorm(1)
        await optimizer.step()
        losses.push(await model.loss(countingBatch()))
      }
      t.true(distance(losses[1]!, losses[0]!) < 1e-4, losses.join(' '))
    })
  }

  on(`${device}: auto picks the best device, and deviceState reports it`, async (t) => {
    const model = new Transformer({ ...TINY, device })
    await model.synchronize()
    const state = await model.deviceState()
    t.is(state.device, device)
    t.is(state.peakBytes === undefined, device === 'cpu')
    const best = native.cudaDeviceCount() > 0 ? 'cuda' : 'cpu'
    t.is(new Transformer({ ...TINY, device: 'auto' }).options.device, best)
  })
}
