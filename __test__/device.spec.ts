/** The table of peaks, and the share of them that a speed is. */
import test from 'ava'
import { knownPeak, mfuOf } from '../src/device'

const bf16 = { dtype: 'bf16', tf32: false } as const

test('a GPU is known by the name that its driver gives, whatever its memory', (t) => {
  t.is(knownPeak('NVIDIA A100-SXM4-80GB', bf16), 312)
  t.is(knownPeak('NVIDIA A100 80GB PCIe', bf16), 312)
  t.is(knownPeak('NVIDIA H100 80GB HBM3', bf16), 989.4)
  t.is(knownPeak('NVIDIA GeForce RTX 4090', bf16), 165.2)
})

test('a name that another begins with is not taken for it', (t) => {
  t.is(knownPeak('NVIDIA L40S', bf16), 362)
  t.is(knownPeak('NVIDIA L4', bf16), 121)
  for (const other of [
    'NVIDIA A1000',
    'NVIDIA A10',
    'NVIDIA H100 PCIe',
    'NVIDIA H200 NVL',
    'NVIDIA GeForce RTX 4090 D',
    'NVIDIA GeForce RTX 4090 Laptop GPU',
    'Emulated GPU',
  ])
    t.is(knownPeak(other, bf16), null, other)
})

test('the peak is that of the arithmetic: tf32 counts for f32 only', (t) => {
  t.is(knownPeak('NVIDIA H200', { dtype: 'f32', tf32: false }), 66.9)
  t.is(knownPeak('NVIDIA H200', { dtype: 'f32', tf32: true }), 494.7)
  t.is(knownPeak('NVIDIA H200', { dtype: 'bf16', tf32: true }), 989.4)
})

test('mfu is FLOPs a second over the peak, and unknown without one', (t) => {
  t.is(mfuOf(1e9, 50_000, 100), 0.5)
  t.is(mfuOf(1e9, 50_000, null), null)
})
