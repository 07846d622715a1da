// Files of a release folder, by HTTP. Made by edgekit.
//
// Nothing about the phone or its user is sent. Redirects are not followed, and no more is read than a file may have.

#if canImport(CryptoKit)
import Foundation

#if canImport(FoundationNetworking)
import FoundationNetworking
#endif

/// Why nothing could be looked at or kept: nothing is changed by it.
struct Unreachable: Error {
    let reason: String

    init(_ reason: String) {
        self.reason = reason
    }
}

/// Tells a check to end before it is done: the system takes its time back.
final class Stop: @unchecked Sendable {
    private let lock = NSLock()
    private var isAsked = false

    func ask() { lock.withLock { isAsked = true } }

    /// - Throws: `Unreachable` if it was asked for.
    func check() throws {
        if lock.withLock({ isAsked }) { throw Unreachable("stopped") }
    }
}

/// A release folder on a server, for one request at a time.
final class Server {
    private let url: String
    private let silence: TimeInterval
    private let stop: Stop
    private let session: URLSession
    private let transfers = Transfers()

    /// - Parameter silence: seconds after which a server that sends nothing is given up.
    init(_ url: String, silence: TimeInterval, stop: Stop) {
        self.url = url.hasSuffix("/") ? String(url.dropLast()) : url
        self.silence = silence
        self.stop = stop
        let settings = URLSessionConfiguration.ephemeral
        settings.requestCachePolicy = .reloadIgnoringLocalCacheData
        settings.urlCache = nil
        settings.urlCredentialStorage = nil
        settings.httpCookieStorage = nil
        settings.httpShouldSetCookies = false
        settings.timeoutIntervalForRequest = max(silence, 1) * 2  // `get` gives up before
        settings.httpAdditionalHeaders = [
            "Accept-Encoding": "identity", "Accept-Language": "*", "User-Agent": "edgekit",
        ]
        session = URLSession(configuration: settings, delegate: transfers, delegateQueue: nil)
    }

    /// Ends the connections.
    func close() { session.invalidateAndCancel() }

    /// Returns a metadata file; nil if the server says that there is none and it may be missing.
    func metadata(_ name: String, most: Int = 65_536, mayBeMissing: Bool = false) throws -> Data? {
        var file = Data()
        let status = try get(name, most: most, seconds: 60) { file.append($0) }
        if mayBeMissing, [403, 404, 410].contains(status) { return nil }
        guard status == 200 else { throw Unreachable("\(name): HTTP status \(status)") }
        return file
    }

    /// Gives a file of a release piece by piece to `take`.
    func release(_ name: String, most: Int, take: @escaping (Data) throws -> Void) throws {
        let status = try get(name, most: most, seconds: 60 + Double(most) / 10_000, take: take)
        guard status == 200 else { throw Unreachable("\(name): HTTP status \(status)") }
    }

    /// Asks for a file, and returns the status. `take` gets what a server sends with status 200.
    private func get(_ name: String, most: Int, seconds: Double, take: @escaping (Data) throws -> Void) throws -> Int {
        try stop.check()
        guard let address = URL(string: "\(url)/\(name)"), ["https", "http"].contains(address.scheme?.lowercased())
        else { throw Unreachable("\(url) is no address of HTTPS") }
        let transfer = Transfer(session.dataTask(with: address), most: most, take: take)
        transfers.begin(transfer)
        defer { transfers.end(transfer) }
        do {
            return try transfer.status(within: seconds, silence: silence, stop: stop)
        } catch let refused as Refused {
            throw Refused("\(name): \(refused.reason)")
        } catch let unreachable as Unreachable {
            throw Unreachable("\(name): \(unreachable.reason)")
        }
    }
}

/// One answer of the server as it comes in.
private final class Transfer: @unchecked Sendable {
    let task: URLSessionDataTask
    private let most: Int
    private let take: (Data) throws -> Void
    private let condition = NSCondition()
    private var status = 0
    private var count = 0
    private var last = Date()
    private var isDone = false
    private var failure: Error?

    init(_ task: URLSessionDataTask, most: Int, take: @escaping (Data) throws -> Void) {
        self.task = task
        self.most = most
        self.take = take
    }

    /// Waits for the end, and returns the status.
    func status(within seconds: Double, silence: TimeInterval, stop: Stop) throws -> Int {
        let end = Date(timeIntervalSinceNow: seconds)
        condition.lock()
        defer {
            isDone = true
            condition.unlock()
            task.cancel()
        }
        last = Date()
        task.resume()
        while !isDone {
            let limit = min(end, last.addingTimeInterval(silence))
            guard Date() < limit else { throw Unreachable("it took too long") }
            try stop.check()
            _ = condition.wait(until: min(limit, Date(timeIntervalSinceNow: 0.5)))
        }
        if let failure { throw failure }
        return status
    }

    /// Takes note of the head of the answer, and returns whether the rest is wanted.
    func begins(_ response: URLResponse) -> Bool {
        note {
            guard let response = response as? HTTPURLResponse else { throw Unreachable("no answer of HTTP") }
            status = response.statusCode
            guard !(300..<400).contains(status) else { throw Unreachable("redirect") }
            let encoding = response.value(forHTTPHeaderField: "Content-Encoding") ?? "identity"
            guard encoding == "identity" else { throw Unreachable("encoded as \(encoding)") }
            isDone = status != 200
        }
    }

    /// Takes a piece, and returns whether more is wanted.
    func takes(_ data: Data) -> Bool {
        note {
            count += data.count
            guard count <= most else { throw Refused("longer than it may be") }
            try take(data)
        }
    }

    func ends(_ error: Error?) {
        _ = note {
            if let error { throw Unreachable(error.localizedDescription) }
            isDone = true
        }
    }

    private func note(_ action: () throws -> Void) -> Bool {
        condition.lock()
        defer { condition.unlock() }
        guard !isDone else { return false }
        last = Date()
        do { try action() } catch { (failure, isDone) = (error, true) }
        condition.signal()
        return !isDone
    }
}

/// Gives what the session tells to the transfer under way.
private final class Transfers: NSObject, URLSessionDataDelegate, @unchecked Sendable {
    private let lock = NSLock()
    private var current: Transfer?

    func begin(_ transfer: Transfer) { lock.withLock { current = transfer } }

    func end(_ transfer: Transfer) { lock.withLock { current = nil } }

    private func transfer(_ task: URLSessionTask) -> Transfer? {
        lock.withLock { current?.task === task ? current : nil }
    }

    func urlSession(
        _ session: URLSession, task: URLSessionTask, willPerformHTTPRedirection response: HTTPURLResponse,
        newRequest request: URLRequest, completionHandler: @escaping (URLRequest?) -> Void
    ) {
        _ = transfer(task)?.begins(response)
        completionHandler(nil)
    }

    func urlSession(
        _ session: URLSession, dataTask: URLSessionDataTask, didReceive response: URLResponse,
        completionHandler: @escaping (URLSession.ResponseDisposition) -> Void
    ) {
        completionHandler(transfer(dataTask)?.begins(response) == true ? .allow : .cancel)
    }

    func urlSession(_ session: URLSession, dataTask: URLSessionDataTask, didReceive data: Data) {
        if transfer(dataTask)?.takes(data) != true { dataTask.cancel() }
    }

    func urlSession(_ session: URLSession, task: URLSessionTask, didCompleteWithError error: Error?) {
        transfer(task)?.ends(error)
    }
}
#endif
