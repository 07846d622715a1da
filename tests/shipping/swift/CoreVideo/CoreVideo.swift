// Stands in for CoreVideo: the signatures that the kit uses.
public typealias OSType = UInt32
public typealias CVReturn = Int32

public let kCVPixelFormatType_32BGRA: OSType = 0x4247_5241

public struct CVPixelBufferLockFlags: OptionSet {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }
    public static let readOnly = CVPixelBufferLockFlags(rawValue: 1)
}

public final class CVPixelBuffer {
    let width: Int
    let bytes: UnsafeMutableRawBufferPointer
    let padding = 16
    let format: OSType

    /// Makes a frame of rows of `width` pixels with padding after each.
    public init(_ width: Int, _ height: Int, _ bgra: [UInt8], format: OSType = kCVPixelFormatType_32BGRA) {
        self.width = width
        self.format = format
        bytes = .allocate(byteCount: (width * 4 + padding) * height, alignment: 16)
        for row in 0..<height {
            for at in 0..<width * 4 { bytes[row * (width * 4 + padding) + at] = bgra[row * width * 4 + at] }
        }
    }

    deinit { bytes.deallocate() }
}

@discardableResult
public func CVPixelBufferLockBaseAddress(_ frame: CVPixelBuffer, _ flags: CVPixelBufferLockFlags) -> CVReturn { 0 }
@discardableResult
public func CVPixelBufferUnlockBaseAddress(_ frame: CVPixelBuffer, _ flags: CVPixelBufferLockFlags) -> CVReturn { 0 }
public func CVPixelBufferGetPixelFormatType(_ frame: CVPixelBuffer) -> OSType { frame.format }
public func CVPixelBufferGetWidth(_ frame: CVPixelBuffer) -> Int { frame.width }
public func CVPixelBufferGetHeight(_ frame: CVPixelBuffer) -> Int {
    frame.bytes.count / CVPixelBufferGetBytesPerRow(frame)
}
public func CVPixelBufferGetBytesPerRow(_ frame: CVPixelBuffer) -> Int { frame.width * 4 + frame.padding }
public func CVPixelBufferGetBaseAddress(_ frame: CVPixelBuffer) -> UnsafeMutableRawPointer? { frame.bytes.baseAddress }
