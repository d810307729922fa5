/// <reference types="node" preserve="true" />
/** Kindling's public API. */
export { account, flopsPerToken, type Account, type AccountOptions } from './account'
export { Batch, type BatchArrays, type TokenRow } from './batch'
export { Checkpoint, Snapshot } from './checkpoint'
export { KindlingError } from './errors'
export { ChatTemplate, type ChatMessage, type ChatModel } from './exchange/chat-template'
export type { Companions } from './exchange/companions'
export { exportModel, type ExportOptions, type ExportedModel } from './exchange/export-model'
export {
  generate,
  generateBatch,
  type GenerateOptions,
  type GenerateResult,
  type StopReason,
} from './generate'
export type { LongCallOptions } from './long-call'
export { ops } from './ops'
export {
  AdamW,
  Optimizer,
  Sgd,
  type AdamWGroup,
  type AdamWOptions,
  type SgdGroup,
  type SgdOptions,
} from './optimizer'
export { cosineSchedule, type CosineScheduleOptions } from './training/schedule'
export { availableThreads, instructionSet, peakRssMib } from './system'
export { BatchLoader, type BatchLoaderOptions, type MixturePart } from './training/batch-loader'
export {
  sweep,
  type SweepOptions,
  type SweepProgress,
  type SweepResult,
  type SweepRunOptions,
  type SweepSummary,
} from './sweep'
export { TokenStore } from './token-store'
export {
  type BatchOptions,
  type EncodeOptions,
  type EncodeSummary,
  type EvaluationBatchOptions,
  type ReshapeOptions,
  type Sampling,
  type StoreMetadata,
} from './token-store-options'
export { END_OF_TEXT, Tokenizer, type TextPieces, type TrainTokenizerOptions } from './tokenizer'
export {
  Transformer,
  type DeviceState,
  type ForwardBackwardOptions,
  type ForwardOptions,
  type Tensor,
  type TensorRecord,
} from './transformer'
export { type RopeScaling, type TransformerOptions } from './transformer-options'
export { type ResolvedOptions, type TrainOptions, type TrainerOptions } from './training/config'
export { evaluate, type EvaluateOptions, type Evaluation } from './training/evaluate'
export { load, type LoadOptions, type LoadedModel } from './training/model-source'
export { save, type SavedModel } from './training/save-model'
export { type RunConfig, type StoreIdentity } from './training/run-config'
export { type MetricsLine } from './training/metrics'
export { train, type TrainLoopOptions, type TrainStep } from './training/train'
export { Trainer, type StepEvent, type TrainSummary, type TrainerEvents } from './training/trainer'
