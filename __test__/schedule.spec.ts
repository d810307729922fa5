/** The learning-rate schedule at the steps where its pieces meet. */
import test from 'ava'
import { KindlingError } from '../src/errors'
import { cosineSchedule } from '../src/training/schedule'

const CORNERS = { lrMax: 1, lrMin: 0.1, warmupSteps: 7, cosineSteps: 21 }

test('the rate rises linearly, decays as a cosine and stays at its floor', (t) => {
  const schedule = cosineSchedule(CORNERS)
  const expected: [number, number][] = [
    [0, 0],
    [1, 1 / 7],
    [6, 6 / 7],
    [7, 1],
    [14, 0.55],
    [21, 0.1],
    [22, 0.1],
    [1000, 0.1],
  ]
  for (const [step, rate] of expected)
    t.true(Math.abs(schedule(step) - rate) < 1e-12, `${step}: ${schedule(step)}`)
  t.is(schedule(8), 0.1 + ((1 + Math.cos(Math.PI / 14)) / 2) * 0.9)
})

test('there is no decay if warmupSteps equals cosineSteps', (t) => {
  const schedule = cosineSchedule({ ...CORNERS, cosineSteps: 7 })
  t.deepEqual([schedule(6), schedule(7), schedule(8)], [6 / 7, 1, 0.1])
})

test('without warm-up the rate starts at its peak', (t) => {
  t.is(cosineSchedule({ ...CORNERS, warmupSteps: 0 })(0), 1)
})

test('invalid rates and step counts are ERR_INVALID_ARGUMENT', (t) => {
  for (const wrong of [{ lrMax: NaN }, { lrMin: -1 }, { warmupSteps: 22 }]) {
    const error = t.throws(() => cosineSchedule({ ...CORNERS, ...wrong }), {
      instanceOf: KindlingError,
    })
    t.is(error?.code, 'ERR_INVALID_ARGUMENT')
  }
})
