// The folder of updates on this phone: what is known, releases, locks. Made by edgekit.

#if canImport(CryptoKit)
import CryptoKit
import Foundation

/// state.json.
struct State: Codable, Equatable {
    var schema = 1
    /// Of the app that wrote it.
    var built: String
    /// Drawn once and never sent: it decides when a rollout reaches this phone.
    var id = (0..<32).map { _ in String(Int.random(in: 0..<16), radix: 16) }.joined()
    var timestamp = 0
    var snapshot = 0
    var targets = 0
    /// Ids of the keys under which these versions were accepted.
    var keys = ""
    var clock = 0
    /// What the last check that came to an end was about.
    var settled = ""
    /// The release in use; "": the app's own model.
    var active = ""
    /// Whether the release in use has not given a good answer yet.
    var trying = false
    var starts = 0
    var previous = ""
    /// Releases that failed on this phone.
    var barred: [String] = []
    var testing = ""
    var tests = 0

    /// Goes back to the release before.
    mutating func goBack() {
        (active, previous, trying, starts, settled) = (previous, "", false, 0, "")
    }

    mutating func bar(_ release: String) {
        if !barred.contains(release) { barred.append(release) }
        settled = ""
    }

    fileprivate var isSound: Bool {
        schema == 1 && !id.isEmpty && [timestamp, snapshot, targets, clock, starts, tests].allSatisfy { $0 >= 0 }
            && ([active, previous, testing].filter { !$0.isEmpty } + barred).allSatisfy(isId)
    }
}

/// A file as metadata describes it.
struct Description: Codable, Equatable {
    let length: Int
    let sha256: String
}

/// The folder of updates. `Updates` says who may do what, and when.
struct Store: Sendable {
    let folder: URL
    let built: String

    var root: URL { folder.appendingPathComponent("root.json") }
    private var file: URL { folder.appendingPathComponent("state.json") }
    private var releases: URL { folder.appendingPathComponent("releases") }

    func release(_ id: String) -> URL { releases.appendingPathComponent(id) }

    /// The folder of a release that is being downloaded.
    func part(_ id: String) -> URL { releases.appendingPathComponent(".\(id).part") }

    /// Makes the folder, and keeps it out of backups: all of it can be downloaded again.
    func prepare() throws {
        try FileManager.default.createDirectory(at: releases, withIntermediateDirectories: true)
        #if canImport(Darwin)
        var values = URLResourceValues(), folder = folder
        values.isExcludedFromBackup = true
        try folder.setResourceValues(values)
        #endif
    }

    // MARK: State

    /// Returns what is known: a new state where there is none, it is damaged, or another app wrote it.
    func read() -> State { saved() ?? State(built: built) }

    private func saved() -> State? {
        guard let data = try? Data(contentsOf: file), var state = try? JSONDecoder().decode(State.self, from: data),
            state.isSound
        else { return nil }
        if state.built != built {  // the app was updated: its own model may be newer
            state.built = built
            (state.active, state.previous, state.testing, state.settled) = ("", "", "", "")
            (state.trying, state.starts, state.tests) = (false, 0, 0)
        }
        return state
    }

    /// Reads the state, changes it and writes it, while no other thread or process does.
    @discardableResult
    func change<Value>(_ action: (inout State) throws -> Value) throws -> Value {
        guard let value = try locked("state.lock", waits: true, { try changed(action) }) else {
            throw Unreachable("state.lock cannot be had")
        }
        return value
    }

    private func changed<Value>(_ action: (inout State) throws -> Value) throws -> Value {
        let before = saved()
        var state = before ?? State(built: built)
        let value = try action(&state)
        if state != before {
            let encoder = JSONEncoder()
            encoder.outputFormatting = .sortedKeys
            try write(encoder.encode(state), to: file)
        }
        return value
    }

    /// Runs an action while no other thread or process holds a lock; returns nil if one does and it does not wait.
    func locked<Value>(_ name: String, waits: Bool, _ action: () throws -> Value) throws -> Value? {
        let path = folder.appendingPathComponent(name).path
        let lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard lock >= 0 else { throw FileError(path) }
        defer { close(lock) }  // which ends the lock, as the end of the process does
        while flock(lock, waits ? LOCK_EX : LOCK_EX | LOCK_NB) != 0 {
            if errno == EWOULDBLOCK { return nil }
            guard errno == EINTR else { throw FileError(path) }
        }
        return try action()
    }

    // MARK: Releases

    /// Returns whether a release is there with every file that it came with.
    func isWhole(_ id: String) -> Bool {
        guard isId(id), let files = try? files(of: id), !files.isEmpty else { return false }
        return files.allSatisfy { isFileName($0) && Store.holds(release(id).appendingPathComponent($0), $1) }
    }

    /// The files of a release by name, as they were signed.
    func files(of id: String) throws -> [String: Description] {
        let data = try Data(contentsOf: release(id).appendingPathComponent("files.json"))
        return try JSONDecoder().decode([String: Description].self, from: data)
    }

    /// Returns whether a file has the length and the bytes that it must have.
    static func holds(_ url: URL, _ wanted: Description) -> Bool {
        guard length(url) == wanted.length, let file = try? FileHandle(forReadingFrom: url) else { return false }
        defer { try? file.close() }
        var hash = SHA256()
        while let piece = autoreleased({ try? file.read(upToCount: 1 << 20) }), !piece.isEmpty {
            hash.update(data: piece)
        }
        return hex(hash.finalize()) == wanted.sha256
    }

    /// Puts a downloaded release in its place.
    func install(_ id: String, _ files: [String: Description]) throws {
        let part = part(id)
        for name in Set(files.keys.map { ($0 as NSString).deletingLastPathComponent }) {
            try Store.sync(part.appendingPathComponent(name))
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        try write(encoder.encode(files), to: part.appendingPathComponent("files.json"))
        remove(release(id))
        guard rename(part.path, release(id).path) == 0 else { throw FileError(part.path) }
        try Store.sync(releases)
    }

    func remove(_ url: URL) { try? FileManager.default.removeItem(at: url) }

    /// Removes what is in the folder of releases, but for some.
    func removeAll(but kept: [URL]) {
        let names = Set(kept.map(\.lastPathComponent))
        let inside = (try? FileManager.default.contentsOfDirectory(atPath: releases.path)) ?? []
        for name in inside where !names.contains(name) { remove(releases.appendingPathComponent(name)) }
    }

    /// Removes what was downloaded of releases, but for one.
    func removeParts(but kept: String? = nil) {
        let inside = (try? FileManager.default.contentsOfDirectory(atPath: releases.path)) ?? []
        let names = inside.filter { $0.hasPrefix(".") && $0 != kept.map { ".\($0).part" } }
        for name in names { remove(releases.appendingPathComponent(name)) }
    }

    // MARK: Files

    /// Writes a file whole or not at all, even if the power goes.
    func write(_ data: Data, to url: URL) throws {
        let made = url.appendingPathExtension("new")
        do {
            let output = try Output(made)
            try output.write(data)
            try output.finish()
            guard rename(made.path, url.path) == 0 else { throw FileError(url.path) }
        } catch {
            remove(made)
            throw error
        }
        try Store.sync(url.deletingLastPathComponent())
    }

    /// Makes sure that a folder or a file is on the disk.
    static func sync(_ url: URL) throws {
        let file = open(url.path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw FileError(url.path) }
        defer { close(file) }
        try flushed(file, url.path)
    }

    static func length(_ url: URL) -> Int? {
        let values = try? FileManager.default.attributesOfItem(atPath: url.path)
        guard values?[.type] as? FileAttributeType == .typeRegular else { return nil }
        return (values?[.size] as? NSNumber)?.intValue
    }
}

/// A file that is written piece by piece. It is closed with its last reference.
final class Output: @unchecked Sendable {
    private let file: Int32
    private let path: String

    /// Makes a new file; one that is there is written anew.
    init(_ url: URL) throws {
        path = url.path
        file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw FileError(path) }
    }

    deinit { close(file) }

    func write(_ data: Data) throws {
        try data.withUnsafeBytes { bytes in
            var at = 0
            while at < bytes.count {
                let count = posixWrite(file, bytes.baseAddress! + at, bytes.count - at)
                if count < 0 && errno == EINTR { continue }
                guard count > 0 else { throw FileError(path) }
                at += count
            }
        }
    }

    /// Makes sure that all of it is on the disk.
    func finish() throws { try flushed(file, path) }
}

/// What the system says of a file.
struct FileError: Error {
    let reason: String
    let isFull: Bool

    init(_ path: String) {
        let code = errno
        isFull = code == ENOSPC || code == EDQUOT
        let name = (path as NSString).lastPathComponent
        reason = isFull ? "no space for \(name)" : "\(name): \(String(cString: strerror(code)))"
    }

    /// The same of an error of Foundation.
    init(_ error: Error) {
        let error = error as NSError
        let below = error.userInfo[NSUnderlyingErrorKey] as? NSError ?? error
        let isOutOfSpace = error.domain == NSCocoaErrorDomain && error.code == CocoaError.fileWriteOutOfSpace.rawValue
        isFull = isOutOfSpace || (below.domain == NSPOSIXErrorDomain && [ENOSPC, EDQUOT].contains(Int32(below.code)))
        reason = isFull ? "no space" : error.localizedDescription
    }
}

/// Makes sure that what was written is on the disk, not only in its cache.
private func flushed(_ file: Int32, _ path: String) throws {
    #if canImport(Darwin)
    if fcntl(file, F_FULLFSYNC) == 0 { return }  // not every file system knows it
    #endif
    guard fsync(file) == 0 else { throw FileError(path) }
}

private func posixWrite(_ file: Int32, _ bytes: UnsafeRawPointer, _ count: Int) -> Int { write(file, bytes, count) }

/// Runs an action, and frees what it leaves to be freed later.
private func autoreleased<Value>(_ action: () -> Value) -> Value {
    #if canImport(ObjectiveC)
    return autoreleasepool(invoking: action)
    #else
    return action()
    #endif
}

/// Whether a text is an id of releases and channels.
func isId(_ text: String) -> Bool {
    text.utf8.count <= 64 && isName(text.utf8) && text.utf8.first != UInt8(ascii: "_")
}

/// Whether a text is the name of a file of a release: up to four parts with "/" between them.
func isFileName(_ text: String) -> Bool {
    let parts = text.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
    return parts.count <= 4 && parts.allSatisfy { $0.count <= 100 && isName($0) }
}

/// Whether bytes are letters, digits and ". _ -", the first neither a point nor a hyphen.
private func isName<Bytes: Collection>(_ bytes: Bytes) -> Bool where Bytes.Element == UInt8 {
    guard let first = bytes.first, ![UInt8(ascii: "."), UInt8(ascii: "-")].contains(first) else { return false }
    return bytes.allSatisfy { byte in
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
            return true
        default: return false
        }
    }
}
#endif
