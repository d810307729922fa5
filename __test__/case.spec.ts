/** Keys in camelCase and in snake_case. */
import test from 'ava'
import { toCamelCase, toSnakeCase } from '../src/case'

const camel = { dModel: 8, dFf: 4, tokensPerSecond: 2, elapsedS: 1, data: { validStore: null } }
const snake = {
  d_model: 8,
  d_ff: 4,
  tokens_per_second: 2,
  elapsed_s: 1,
  data: { valid_store: null },
}

test('keys are renamed at every depth, in both directions', (t) => {
  t.deepEqual(toSnakeCase(camel), snake)
  t.deepEqual(toCamelCase(snake), camel)
  t.deepEqual(toSnakeCase([{ valLoss: [{ bitsPerByte: 1 }] }]), [
    { val_loss: [{ bits_per_byte: 1 }] },
  ])
})

test('values and the order of keys are kept', (t) => {
  const value = { stopReason: 'max_tokens', ids: Uint32Array.of(7), text: 'camelCase' }
  t.deepEqual(toSnakeCase(value), { stop_reason: 'max_tokens', ids: value.ids, text: 'camelCase' })
  t.deepEqual(Object.keys(toSnakeCase({ zEta: 1, aLpha: 2 })), ['z_eta', 'a_lpha'])
})

test('keys that already have the wanted case are kept', (t) => {
  t.deepEqual(toSnakeCase(snake), snake)
  t.deepEqual(toCamelCase(camel), camel)
})
