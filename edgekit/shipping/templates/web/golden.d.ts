// What golden.js has for other modules.

/** A picture of the golden set: for noise, `source` is what `noise` takes. */
export interface Case { readonly isFile: boolean; readonly source: string; readonly name: string }
export interface Golden { readonly cases: readonly Case[] }
/** Result of a level; `skipped` is "" where it was checked. */
export interface Level {
  readonly level: string; readonly checked: number; readonly problems: readonly string[];
  readonly cause: string; readonly skipped: string;
}
/** What is compared: `delegate` is "cpu" or "gpu"; `noFiles` and `noScores` say why it cannot do that. */
export interface Program {
  readonly contract: object; readonly labels?: readonly string[]; readonly delegate?: string;
  readonly noFiles?: string; readonly noScores?: string;
  pixels(each: Case): Promise<Uint8Array>;
  scores?(square: Uint8Array): Promise<Float32Array>;
}
export declare function open(read: (name: string) => Promise<Uint8Array>, classes: number): Promise<Golden>;
export declare function noise(source: string): { width: number; height: number; data: Uint8Array };
export declare function check(golden: Golden, program: Program): Promise<Level[]>;
