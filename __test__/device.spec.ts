/** The peaks of GPUs, and model FLOPs utilization. */
import test from 'ava'
import { knownPeak, mfuOf } from '../src/device'

const bf16 = { dtype: 'bf16', tf32: false } as const

test('a GPU is recognized by its driver name, whatever its memory', (t) => {
  t.is(knownPeak('NVIDIA A100-SXM4-80GB', bf16), 312)
  t.is(knownPeak('NVIDIA A100 80GB PCIe', bf16), 312)
  t.is(knownPeak('NVIDIA H100 80GB HBM3', bf16), 989.4)
  t.is(knownPeak('NVIDIA GeForce RTX 4090', bf16), 165.2)
})

test('a GPU whose name merely starts with a known one is not mistaken for it', (t) => {
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

test('the peak depends on the arithmetic, and tf32 only affects f32', (t) => {
  t.is(knownPeak('NVIDIA H200', { dtype: 'f32', tf32: false }), 66.9)
  t.is(knownPeak('NVIDIA H200', { dtype: 'f32', tf32: true }), 494.7)
  t.is(knownPeak('NVIDIA H200', { dtype: 'bf16', tf32: true }), 989.4)
})

test('MFU is FLOP/s over the peak, and null without a known peak', (t) => {
  t.is(mfuOf(1e9, 50_000, 100), 0.5)
  t.is(mfuOf(1e9, 50_000, null), null)
})
