import type { Options } from './classifier.js';
export type Bytes = Uint8Array<ArrayBuffer>;
/** Content of updates.json. */
export interface Settings {
    readonly schema: number;
    /** Address of the release folder. */
    readonly url: string;
    readonly channel: string;
    /** Kind of kit and runtime, such as "web-litert". */
    readonly kit: string;
    /** Schema of preprocess.json that this kit's program reads. */
    readonly contract: number;
    /** Tells one model that the kit came with from another. */
    readonly built: string;
}
/** A release on this device: its files by name, such as "labels.txt" and "golden/golden.tsv". */
export interface Release {
    readonly id: string;
    readonly files: ReadonlyMap<string, Bytes>;
}
/** What a check came to. */
export interface Outcome {
    /**
     * "current": nothing to do. "updated": the next start uses `release` ("": the kit's own model). "refused": something
     * is wrong. "unreachable": the network, the server or the storage failed, nothing changed. "busy": another check runs.
     */
    readonly state: 'current' | 'updated' | 'refused' | 'unreachable' | 'busy';
    readonly release: string;
    readonly reason: string;
}
/** Where releases and their state are kept: files by path. */
export interface Store {
    /** Returns a file; null where there is none. */
    read(path: string): Promise<Bytes | null>;
    /** Writes a file, whole or not at all. @throws an error named QuotaExceededError: there is no space. */
    write(path: string, bytes: Bytes): Promise<void>;
    /** Returns the names of what is in a folder. */
    list(folder: string): Promise<string[]>;
    /** Removes a folder with all that is in it. */
    remove(folder: string): Promise<void>;
    /** Renames a folder in one step; there is none of the new name. */
    rename(from: string, to: string): Promise<void>;
    /** Runs a job while no other page has the lock. Waits for it, or returns null where another page has it. */
    exclusive<T>(lock: 'update' | 'state', waits: boolean, job: () => Promise<T>): Promise<T | null>;
    /** Marks this page as one that has started and not yet answered, until it ends. Returns how many others are marked. */
    mark(): Promise<number>;
    /** Takes the mark away. */
    unmark(): void;
}
/** What `Updates` works with; `Updates.open` makes it for a browser. */
export interface Setup {
    readonly settings: Settings;
    /** The metadata that is trusted first. */
    readonly root: Bytes;
    readonly store: Store;
    /** Returns the file of the kit that has a SHA-256; null where there is none. */
    own(sha256: string): Promise<Bytes | null>;
    /** Returns what is wrong with a release on this device; "" if nothing. */
    test(release: Release, stop: AbortSignal): Promise<string>;
    /** How long a server may be silent, and how long a test may take. */
    readonly seconds: {
        readonly read: number;
        readonly test: number;
    };
}
/** Keeps the model of a kit up to date. */
export declare class Updates {
    private readonly setup;
    private started;
    /** @param setup what it works with, or why there are no updates here. */
    constructor(setup: Setup | Outcome);
    /**
     * Opens the updates of a kit in a browser. Where there can be none, `start` returns null and `check` says why.
     *
     * @param folder address of the kit; default: where this file lies.
     * @param options as for `Classifier.open`: releases are tested so before they are used.
     */
    static open(folder?: string | URL, options?: Options): Promise<Updates>;
    /** Returns the release to use now; null: the kit's own files. Every file of it was verified. */
    start(): Promise<Release | null>;
    /** Says that the release gives good answers: it stays. */
    good(): Promise<void>;
    /**
     * Looks for a new release, takes it, and tests it on this device.
     *
     * @param app version of the app, for releases that need one. @param now seconds since 1970.
     */
    check({ app, now }?: {
        app?: number;
        now?: number;
    }): Promise<Outcome>;
    private get ready();
    /** Decides what this start uses. */
    private begun;
    /** Returns the active release; where it is damaged (a power cut), the one before. */
    private stored;
    /** Returns a release with all its files; null where one is missing or damaged. */
    private complete;
    /** Checks the release folder, step by step as TUF says. */
    private checked;
    /** Follows the root metadata to the newest, which the one before and itself have signed. */
    private newestRoot;
    /** Returns verified metadata that other metadata names. */
    private metadata;
    /** Refuses what has expired, and keeps the time, so that a clock set back does not revive it. */
    private fresh;
    /** Chooses a release for this device, downloads and tests it, and switches to it. */
    private taken;
    /** Returns why a release is not for this device; "" if it is. */
    private unsuited;
    /** Leaves a release that was recalled, or failed, for the one before or the kit's own model. */
    private withdrawn;
    /** Brings every file of a release onto this device. */
    private downloaded;
    /** Returns whether a release lies on this device already, whole, with these very files. */
    private isThere;
    /** Returns the names of a release's files by SHA-256, as it lies on this device. */
    private listed;
    /** Runs the test of a release; one that fails it is never used. */
    private tested;
    /** Removes every release but the active one and the one before. */
    private tidied;
    /** Changes state.json while no other page does. */
    private change;
    /** Returns the state, and the text that is saved of it; a new state where it is missing or damaged. */
    private load;
    private save;
    /** Returns a file of the release folder, in time and no longer than it may be. */
    private get;
}
/** Returns the 64 bytes that WebCrypto takes of a signature in DER; null where it is none. */
export declare function rawSignature(der: Bytes): Bytes | null;
