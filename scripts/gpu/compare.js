/**
 * Compares the engine on a GPU with the engine on the CPU in f32: all gradients of a model, or the
 * losses of a training run. Prints one JSON line.
 *
 * Usage: node compare.js gradients|training MODEL DTYPE [STEPS]
 *
 * MODEL is a key of MODELS.
 */
const path = require('node:path')
const kindling = require(path.join(__dirname, '..', '..', 'dist'))

const model = ([
  vocabSize,
  dModel,
  numHeads,
  numKvHeads,
  dFf,
  numLayers,
  maxSeqLength,
  batchSize,
]) => ({
  shape: { vocabSize, dModel, numHeads, numKvHeads, dFf, numLayers, maxSeqLength, seed: 5 },
  batchSize,
})
const MODELS = {
  // Sizes no tile divides; grouped-query attention; several tiles; the heads of gpt2-small-bench.
  odd: model([61, 34, 1, 1, 47, 2, 23, 3]),
  grouped: model([97, 48, 4, 2, 80, 2, 40, 2]),
  char: model([65, 128, 4, 4, 344, 4, 64, 12]),
  wide: model([1003, 256, 4, 4, 680, 3, 300, 3]),
  gpt: model([5003, 768, 12, 12, 2048, 2, 512, 2]),
}

function batch({ shape, batchSize }, step) {
  const tokens = batchSize * shape.maxSeqLength
  const at = (i) => (i * 31 + step * 17 + ((i * i) % 7)) % shape.vocabSize
  const x = Int32Array.from({ length: tokens }, (_, i) => at(i))
  const y = Int32Array.from({ length: tokens }, (_, i) => (i % 11 === 5 ? -100 : at(i + 1)))
  return { x, y, batchSize }
}

/** Returns the largest difference relative to the largest value, for the worst tensor. */
function worst(actual, expected) {
  let found = { error: 0, name: '' }
  for (const [name, { data }] of Object.entries(expected)) {
    let [difference, largest] = [0, 1e-12]
    data.forEach((value, i) => {
      const apart = Math.abs(actual[name].data[i] - value)
      difference = Number.isNaN(apart) ? Infinity : Math.max(difference, apart)
      largest = Math.max(largest, Math.abs(value))
    })
    if (difference / largest > found.error) found = { error: difference / largest, name }
  }
  return found
}

async function gradients(chosen, dtype) {
  const on = async (device, kind) => {
    const transformer = new kindling.Transformer({ ...chosen.shape, device, dtype: kind })
    const { loss } = await transformer.forwardBackward(batch(chosen, 0))
    return { loss, gradients: await transformer.gradients() }
  }
  const [expected, actual] = [await on('cpu', 'f32'), await on('cuda', dtype)]
  const { error, name } = worst(actual.gradients, expected.gradients)
  return { loss: actual.loss, cpu_loss: expected.loss, error, tensor: name }
}

async function training(chosen, dtype, steps) {
  const on = async (device, kind) => {
    const transformer = new kindling.Transformer({ ...chosen.shape, device, dtype: kind })
    const optimizer = new kindling.AdamW(transformer, { lr: 1e-3 })
    const losses = []
    for (let step = 0; step < steps; step++) {
      losses.push((await transformer.forwardBackward(batch(chosen, step % 10))).loss)
      await optimizer.clipGradNorm(1)
      await optimizer.step()
    }
    return losses
  }
  const [expected, actual] = [await on('cpu', 'f32'), await on('cuda', dtype)]
  // Relative to the loss but to at least 1: a loss near 0 is all rounding.
  const apart = actual.map(
    (loss, step) => Math.abs(loss - expected[step]) / Math.max(expected[step], 1),
  )
  const error = apart.some(Number.isNaN) ? Infinity : Math.max(...apart)
  return {
    steps,
    loss_first: actual[0],
    loss_last: actual.at(-1),
    cpu_loss_last: expected.at(-1),
    error,
  }
}

const [what, name, dtype, steps] = process.argv.slice(2)
const measure = what === 'gradients' ? gradients : training
void measure(MODELS[name], dtype, Number(steps)).then((result) =>
  console.log(JSON.stringify(result)),
)
