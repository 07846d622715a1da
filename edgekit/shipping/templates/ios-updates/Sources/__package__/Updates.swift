// New releases of the model, from a release folder on any web server, without a new version of the app.
// Made by edgekit.
//
//     let updates = try Updates(on: .cpu)                                     // once, when the app starts
//     let classifier = try Classifier(folder: updates.start(), on: .cpu)
//     let answers = try classifier.classify(contentsOf: url)
//     updates.good()                                                          // after the first good answer
//     let outcome = await updates.check()                                     // once a day, in the background
//
// A release is taken if it is signed, newer than the last one and for this kit, and if it passes the golden set that
// came with it on this very phone. It is used from the next `start()` on. Where two starts bring no good answer, the
// release before it comes back, and the failed one is never tried again.

#if canImport(CryptoKit)
import CryptoKit
import Foundation

/// What a check came to.
public struct Outcome: Equatable, Sendable {
    public enum State: String, Sendable {
        /// There is nothing to do.
        case current
        /// The next `start()` uses another release.
        case updated
        /// Something is wrong with the release folder or the release: nothing of it is used.
        case refused
        /// The network, the server or the disk failed, or the time was over: the next check goes on.
        case unreachable
        /// Another check is under way.
        case busy
    }

    public let state: State
    /// The release that the next `start()` uses, where it was updated; "": the app's own model.
    public let release: String
    /// Why, in words; "" where there is nothing to say.
    public let reason: String
}

/// Thrown by a test that could not be made, which says nothing of the release: it is tested again at the next check.
public struct NotTested: Error {
    public let reason: String

    public init(_ reason: String) {
        self.reason = reason
    }
}

/// Takes new releases of the model. Every method may be called from any thread.
public final class Updates: Sendable {
    private let own: URL
    private let store: Store
    private let settings: Settings
    private let silence: TimeInterval
    private let testSeconds: TimeInterval
    private let test: @Sendable (URL) throws -> Void

    /// - Parameters:
    ///   - own: the app's own model, with updates.json and root.json.
    ///   - folder: for what is downloaded, of this app alone: no app group's, because iOS ends an app that holds a
    ///     lock there when it goes to sleep.
    ///   - url, channel: instead of those of updates.json.
    ///   - silence: seconds after which a server that sends nothing is given up.
    ///   - testSeconds: most seconds for `test`.
    ///   - test: throws if the model in a folder gives other answers than it must, `NotTested` if it cannot tell. It
    ///     runs before a release is used.
    /// - Throws: `ClassifierError` if updates.json is missing or damaged.
    public init(
        own: URL, folder: URL, url: String? = nil, channel: String? = nil, silence: TimeInterval = 15,
        testSeconds: TimeInterval = 300, test: @escaping @Sendable (URL) throws -> Void
    ) throws {
        var settings = try Settings(contentsOf: own.appendingPathComponent("updates.json"))
        settings.url = url ?? settings.url
        settings.channel = channel ?? settings.channel
        self.settings = settings
        self.own = own
        self.silence = silence
        self.testSeconds = testSeconds
        self.test = test
        store = Store(folder: folder, built: settings.built)
    }

    /// Returns the folder of the model to use from now on; nil: the app's own. It may take as long as reading the
    /// model does, because every file is compared with its hash.
    public func start() -> URL? {
        try? store.prepare()
        do {
            let (release, failed) = try store.change(started)
            for id in failed { store.remove(store.release(id)) }
            return release.isEmpty ? nil : store.release(release)
        } catch {  // it cannot be saved, so nobody would count the starts of a release that fails
            let state = store.read()
            let release = state.trying ? state.previous : state.active
            return store.isWhole(release) ? store.release(release) : nil
        }
    }

    /// Counts a start. Returns the release to use, and those that failed or are damaged.
    private func started(_ state: inout State) -> (String, [String]) {
        var failed: [String] = []
        if state.trying && state.starts >= 2 {
            state.bar(state.active)
            failed.append(state.active)
            state.goBack()
        }
        while !state.active.isEmpty && !store.isWhole(state.active) {  // the power went, or someone else wrote there
            failed.append(state.active)
            state.goBack()
        }
        if state.trying { state.starts += 1 }
        return (state.active, failed)
    }

    /// Says that the release in use works: call it after its first good answer. A release that was downloaded since
    /// the last start is not meant.
    public func good() {
        _ = try? store.change { state in
            if state.trying && state.starts > 0 { (state.trying, state.starts) = (false, 0) }
        }
    }

    /// Looks for another release, and downloads and tests it. It ends early where its task is cancelled.
    ///
    /// - Parameter app: the app's version as a whole number, for releases that need a newer app; by default what
    ///   CFBundleVersion begins with.
    public func check(app: Int? = nil) async -> Outcome {
        let stop = Stop()
        let version = app ?? Updates.version
        return await withTaskCancellationHandler {
            await withCheckedContinuation { waiting in
                DispatchQueue.global(qos: .utility).async {
                    let now = Int(Date().timeIntervalSince1970)
                    waiting.resume(returning: self.check(app: version, now: now, stop: stop))
                }
            }
        } onCancel: {
            stop.ask()
        }
    }

    private static var version: Int {
        let text = Bundle.main.object(forInfoDictionaryKey: "CFBundleVersion") as? String ?? ""
        return Int(text.prefix { $0.isASCII && $0.isNumber }) ?? 0
    }

    /// The same on this thread.
    func check(app: Int, now: Int, stop: Stop) -> Outcome {
        do {
            try store.prepare()
            let outcome = try store.locked("update.lock", waits: false) { try checked(app: app, now: now, stop: stop) }
            return outcome ?? Outcome(state: .busy, release: "", reason: "another check is under way")
        } catch let refused as Refused {
            return Outcome(state: .refused, release: "", reason: refused.reason)
        } catch let unreachable as Unreachable {
            return Outcome(state: .unreachable, release: "", reason: unreachable.reason)
        } catch {
            let problem = error as? FileError ?? FileError(error)
            if problem.isFull { store.removeParts() }
            return Outcome(state: .unreachable, release: "", reason: problem.reason)
        }
    }

    // MARK: What a check does

    private func checked(app: Int, now: Int, stop: Stop) throws -> Outcome {
        let server = Server(settings.url, silence: silence, stop: stop)
        defer { server.close() }
        let clock = max(now, store.read().clock)
        let root = try newestRoot(server)
        guard root.expires > clock else { throw Refused("root.json: expired") }
        let snapshot = try newestSnapshot(server, root, clock)
        let settled = "\(snapshot.version) \(app) \(settings.channel) \(settings.built)"
        let state = store.read()
        if state.settled == settled { return Outcome(state: .current, release: state.active, reason: "") }
        let offer = try offer(server, root, snapshot, clock)
        let outcome = try followed(offer, app: app, server: server, stop: stop)
        try store.change { $0.settled = settled }
        return outcome
    }

    /// Returns the newest root that the one which is trusted leads to.
    private func newestRoot(_ server: Server) throws -> Root {
        var root = try reading("root.json") {
            guard let file = try? Data(contentsOf: own.appendingPathComponent("root.json")) else {
                throw Refused("not in the app")
            }
            return try Root(trusted: file)
        }
        if let file = try? Data(contentsOf: store.root), let saved = try? Root(trusted: file),
            saved.version > root.version
        {
            root = saved
        }
        for _ in 0..<256 {
            let name = "\(root.version + 1).root.json"
            guard let file = try server.metadata(name, mayBeMissing: true) else { break }
            root = try reading(name) { try root.next(file) }
            try store.write(file, to: store.root)
        }
        return root
    }

    /// Returns what timestamp.json says of the snapshot.
    private func newestSnapshot(_ server: Server, _ root: Root, _ clock: Int) throws -> Named {
        let file = try wanted(server, "timestamp.json", most: 65_536)
        return try reading("timestamp.json") {
            let timestamp = try root.verified(file, "timestamp")
            try expect(timestamp, after: clock)
            let version = try timestamp.number("version"), signers = try root.signers()
            let snapshot = try Named("snapshot.json", in: timestamp)
            try store.change { state in
                if state.keys != signers {  // versions of keys that are gone, maybe stolen ones, say nothing
                    (state.timestamp, state.snapshot, state.targets) = (0, 0, 0)
                    (state.keys, state.settled) = (signers, "")
                }
                guard version >= state.timestamp, snapshot.version >= state.snapshot else { throw Updates.older }
                state.timestamp = version
            }
            return snapshot
        }
    }

    /// Returns what the release folder has for this kit.
    private func offer(_ server: Server, _ root: Root, _ named: Named, _ clock: Int) throws -> Offer {
        let file = try wanted(server, "\(named.version).snapshot.json", most: min(named.length ?? 65_536, 65_536))
        let targets = try reading("snapshot.json") {
            try named.expect(file)
            let snapshot = try root.verified(file, "snapshot")
            guard try snapshot.number("version") == named.version else { throw Refused("of another version") }
            let targets = try Named("targets.json", in: snapshot)
            guard targets.version >= store.read().targets else { throw Updates.older }
            try expect(snapshot, after: clock)
            try store.change { $0.snapshot = named.version }
            return targets
        }
        let most = min(targets.length ?? 8_388_608, 8_388_608)
        let list = try wanted(server, "\(targets.version).targets.json", most: most)
        return try reading("targets.json") {
            try targets.expect(list)
            let signed = try root.verified(list, "targets")
            guard try signed.number("version") == targets.version else { throw Refused("of another version") }
            try expect(signed, after: clock)
            let offer = try Offer(signed, kit: settings.kit, contract: settings.contract)
            try store.change { state in
                state.targets = targets.version
                state.clock = max(clock, state.clock)
            }
            return offer
        }
    }

    /// Does what the channel says.
    private func followed(_ offer: Offer, app: Int, server: Server, stop: Stop) throws -> Outcome {
        let state = store.read()
        let channel = try offer.channel(settings.channel)
        let reasons = channel.candidates(for: state.id).map { ($0, offer.reason(against: $0, state, app: app)) }
        let why = reasons.map(\.1).filter { !$0.isEmpty }.joined(separator: "; ")
        if let (id, _) = reasons.first(where: { $0.1.isEmpty }) {
            if id == state.active { return Outcome(state: .current, release: id, reason: why) }
            try download(id, offer.files(of: id), state, server)
            try pass(id, stop)
            try use(id, offer)
            return Outcome(state: .updated, release: id, reason: why)
        }
        if !state.active.isEmpty, offer.isOut(state.active, state) {
            let isGood = !offer.isOut(state.previous, state) && store.isWhole(state.previous)
            try store.change { state in
                state.goBack()
                if !isGood { state.active = "" }
            }
            keepUsed()
            let reason = offer.reason(against: state.active, state, app: app)
            return Outcome(state: .updated, release: isGood ? state.previous : "", reason: reason)
        }
        return Outcome(state: .current, release: state.active, reason: why)
    }

    /// Downloads a release, or what is missing of it.
    private func download(_ id: String, _ files: [String: Target], _ state: State, _ server: Server) throws {
        let wanted = files.mapValues(\.description)
        if (try? store.files(of: id)) == wanted, store.isWhole(id) { return }
        let part = store.part(id)
        store.removeParts(but: id)
        let golden = own.appendingPathComponent("golden")
        let others = [own, golden].flatMap(contents) + [id, state.active, state.previous].flatMap(contents)
        for (name, target) in files.sorted(by: { $0.key < $1.key }) {
            let made = part.appendingPathComponent(name)
            if Store.holds(made, target.description) { continue }
            try FileManager.default.createDirectory(
                at: made.deletingLastPathComponent(), withIntermediateDirectories: true)
            if let other = others.first(where: { Store.holds($0, target.description) }) {
                let output = try Output(made)
                try output.write(Data(contentsOf: other, options: .mappedIfSafe))
                try output.finish()
            }
            if !Store.holds(made, target.description) { try fetch(name, target, to: made, server) }
        }
        let manifest = try? Manifest(contentsOf: part.appendingPathComponent("manifest.json"))
        guard let manifest, files[manifest.model] != nil else {
            store.remove(part)
            throw Refused("\(id): manifest.json names no model file of it")
        }
        try store.install(id, wanted)
    }

    /// Returns the files of a folder; those of folders in it are not looked at.
    private func contents(_ folder: URL) -> [URL] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        return names.map(folder.appendingPathComponent)
    }

    /// Returns the files of a release on this phone.
    private func contents(_ id: String) -> [URL] {
        let files = id.isEmpty ? nil : try? store.files(of: id)
        return (files ?? [:]).keys.filter(isFileName).map(store.release(id).appendingPathComponent)
    }

    private func fetch(_ name: String, _ target: Target, to url: URL, _ server: Server) throws {
        let output = try Output(url)
        var hash = SHA256(), length = 0
        try server.release(target.address, most: target.description.length) { piece in
            hash.update(data: piece)
            length += piece.count
            try output.write(piece)
        }
        guard Description(length: length, sha256: hex(hash.finalize())) == target.description else {
            store.remove(url)
            throw Refused("\(name): not the file that was released")
        }
        try output.finish()
    }

    /// Tests a release on this phone. One that fails, or with which the app ends twice, is barred.
    private func pass(_ id: String, _ stop: Stop) throws {
        let isTested = try store.change { state in
            if state.testing == id && state.tests >= 2 { return true }
            state.tests = state.testing == id ? state.tests + 1 : 1
            state.testing = id
            return false
        }
        var problem = "it crashed or hung"
        if !isTested {
            do {
                guard let found = try tested(id, stop) else { return }
                problem = found
            } catch {  // it was stopped, or could not be made
                try store.change { $0.tests = max($0.tests - 1, 0) }
                throw error
            }
        }
        try store.change { state in
            state.bar(id)
            (state.testing, state.tests) = ("", 0)
        }
        if store.read().previous != id { store.remove(store.release(id)) }
        throw Refused("self-test: \(problem)")
    }

    /// Returns what is wrong with a release; nil if nothing is.
    private func tested(_ id: String, _ stop: Stop) throws -> String? {
        let verdict = Verdict(), folder = store.release(id), test = test
        Thread.detachNewThread {
            do {
                try test(folder)
                verdict.say(nil)
            } catch {
                verdict.say(error)
            }
        }
        return try verdict.problem(within: testSeconds, stop)
    }

    /// Makes a release the one that the next start uses.
    private func use(_ id: String, _ offer: Offer) throws {
        try store.change { state in
            if offer.isOut(state.active, state) {
                state.previous = ""
            } else if !state.trying && !state.active.isEmpty {
                state.previous = state.active
            }
            if state.previous == id { state.previous = "" }
            (state.active, state.trying, state.starts) = (id, true, 0)
            (state.testing, state.tests) = ("", 0)
        }
        keepUsed()
    }

    /// Removes what no start can come back to.
    private func keepUsed() {
        let state = store.read()
        store.removeAll(but: [state.active, state.previous].filter { !$0.isEmpty }.map(store.release))
    }

    private func wanted(_ server: Server, _ name: String, most: Int) throws -> Data {
        guard let file = try server.metadata(name, most: most) else { throw Unreachable("\(name): missing") }
        return file
    }

    /// Expects that metadata has not expired. One that has sets the clock: it stays expired if the phone's is set back.
    private func expect(_ signed: Value, after clock: Int) throws {
        let expires = try signed.expires()
        guard expires <= clock else { return }
        try store.change { $0.clock = max($0.clock, expires) }
        throw Refused("expired")
    }

    private static let older = Refused("older than the last one")
}

/// updates.json.
private struct Settings: Decodable {
    var url: String
    var channel: String
    let schema: Int
    let kit: String
    let contract: Int
    let built: String

    init(contentsOf url: URL) throws {
        guard let data = try? Data(contentsOf: url), let read = try? JSONDecoder().decode(Settings.self, from: data),
            read.schema == 1
        else { throw ClassifierError("updates.json is missing, or not of the schema 1 that this code is for") }
        self = read
    }
}

/// manifest.json of a release, as far as it matters here.
struct Manifest: Decodable {
    let model: String
    let precision: String?

    init(contentsOf url: URL) throws {
        self = try JSONDecoder().decode(Manifest.self, from: Data(contentsOf: url))
    }
}

/// What a metadata file says of the next one.
private struct Named {
    let version: Int
    let length: Int?
    private let sha256: String?

    init(_ name: String, in signed: Value) throws {
        guard let entry = try signed.object("meta")[name] else { throw Refused("no \(name)") }
        version = try entry.number("version")
        length = entry["length"] == nil ? nil : try entry.number("length")
        sha256 = try entry["hashes"]?.text("sha256")
    }

    /// Expects the very file that was named.
    func expect(_ file: Data) throws {
        let isRight = sha256 == nil || sha256 == hex(SHA256.hash(data: file))
        guard isRight else { throw Refused("not the file that was signed") }
    }
}

/// A file of a release: where it is on the server, and what it must be.
private struct Target {
    let address: String
    let description: Description

    /// - Parameter targets: what is signed, by path.
    init(_ name: String, _ path: Value, _ targets: [String: Value]) throws {
        guard isFileName(name), name != "files.json", case .text(let path) = path, isTarget(path) else {
            throw Refused("a file is called what none may be called")
        }
        guard let entry = targets[path] else { throw Refused("\(name) is not among the targets") }
        guard let hash = try entry["hashes"]?.text("sha256"), isHash(hash) else { throw Refused("\(name) has no hash") }
        let parts = path.split(separator: "/")
        address = (["targets"] + parts.dropLast() + ["\(hash).\(parts.last!)"]).joined(separator: "/")
        description = Description(length: try entry.number("length"), sha256: hash)
    }
}

/// Whether a text is the path of a target: 16 digits, "/" and the name of a file.
private func isTarget(_ path: String) -> Bool {
    let parts = path.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    return parts.count == 2 && parts[0].utf8.count == 16 && parts[0].utf8.allSatisfy(isHex)
        && isFileName(String(parts[1]))
}

private func isHash(_ text: String) -> Bool { text.utf8.count == 64 && text.utf8.allSatisfy(isHex) }

/// A channel: which of two releases a phone gets.
private struct Channel {
    let release: String
    let previous: String
    let rollout: Int

    init(_ entry: Value) throws {
        release = try entry.text("release")
        previous = try entry.text("previous")
        rollout = try entry.number("rollout")
        guard isId(release), previous.isEmpty || isId(previous) else { throw Refused("a channel without a release") }
    }

    /// Returns the releases for a phone, the preferred one first.
    func candidates(for phone: String) -> [String] {
        let digest = Array(SHA256.hash(data: Data("\(release)\n\(phone)".utf8)))
        let place = digest[..<4].reduce(0) { $0 << 8 | Int($1) } % 10_000
        return (place < rollout ? [release] : []) + (previous.isEmpty ? [] : [previous])
    }
}

/// A release in the signed list.
private struct Release {
    let app: Int
    let contract: Int
    /// The files of each kind of kit, by name.
    let kits: [String: [String: Target]]

    init(_ entry: Value, _ targets: [String: Value]) throws {
        app = try entry.number("app")
        contract = try entry.number("contract")
        kits = try Dictionary(
            uniqueKeysWithValues: entry.object("kits").keys.map { kit in
                guard let names = try entry["kits"]?.object(kit), names.count <= 256 else {
                    throw Refused("a release of more than 256 files")
                }
                return (kit, try Dictionary(uniqueKeysWithValues: names.map { ($0, try Target($0, $1, targets)) }))
            })
    }
}

/// What the signed list has for a kit.
private struct Offer {
    private let kit: String
    private let contract: Int
    private let channels: [String: Channel]
    private let releases: [String: Release]
    private let recalled: [String]

    /// - Throws: `Refused` if anything of it has another form than it must have.
    init(_ signed: Value, kit: String, contract: Int) throws {
        self.kit = kit
        self.contract = contract
        guard let own = signed["x-edgekit"] else { throw Refused("not of edgekit") }
        guard try own.number("schema") == 1 else { throw Refused("made by a newer edgekit") }
        let targets = try signed.object("targets")
        channels = try own.object("channels").mapValues(Channel.init)
        releases = try own.object("releases").mapValues { try Release($0, targets) }
        recalled = try own.texts("recalled")
        guard ([String](channels.keys) + releases.keys + recalled).allSatisfy(isId) else {
            throw Refused("a release or channel is called what none may be called")
        }
    }

    func channel(_ name: String) throws -> Channel {
        guard let channel = channels[name] else { throw Refused("no channel \(name)") }
        return channel
    }

    /// Whether a release must not be used any more.
    func isOut(_ id: String, _ state: State) -> Bool { recalled.contains(id) || state.barred.contains(id) }

    /// Returns why a release is not for this phone; "" if it is.
    func reason(against id: String, _ state: State, app: Int) -> String {
        if recalled.contains(id) { return "\(id) was recalled" }
        if state.barred.contains(id) { return "\(id) failed here before" }
        guard let release = releases[id] else { return "\(id) is not in the release folder" }
        if release.kits[kit] == nil { return "\(id) is not for \(kit)" }
        if app < release.app { return "\(id) needs version \(release.app) of the app" }
        return release.contract > contract ? "\(id) needs contract \(release.contract)" : ""
    }

    /// Returns the files of a release by name.
    func files(of id: String) throws -> [String: Target] {
        let files = releases[id]?.kits[kit] ?? [:]
        for name in ["manifest.json", "labels.txt", "preprocess.json"] where files[name] == nil {
            throw Refused("\(id): no \(name)")
        }
        guard files.values.reduce(0, { $0 + $1.description.length }) <= 1 << 31 else {
            throw Refused("\(id): more than 2 GiB")
        }
        return files
    }
}

/// What a test says, and the wait for it.
private final class Verdict: @unchecked Sendable {
    private let condition = NSCondition()
    private var said: (error: Error?, isThere: Bool) = (nil, false)

    func say(_ error: Error?) {
        condition.lock()
        said = (error, true)
        condition.signal()
        condition.unlock()
    }

    /// Returns what is wrong, nil if nothing is.
    ///
    /// - Throws: `Unreachable` if it was stopped, or the test could not be made.
    func problem(within seconds: TimeInterval, _ stop: Stop) throws -> String? {
        let end = Date(timeIntervalSinceNow: seconds)
        condition.lock()
        defer { condition.unlock() }
        while true {
            if said.isThere {
                guard let error = said.error else { return nil }
                if let why = error as? NotTested { throw Unreachable("self-test: \(why.reason)") }
                return (error as? ClassifierError)?.description ?? "\(error)"
            }
            guard Date() < end else { return "it took more than \(Int(seconds)) s" }
            try stop.check()
            _ = condition.wait(until: min(end, Date(timeIntervalSinceNow: 0.5)))
        }
    }
}
#endif
