// Stands in for CoreGraphics: the signatures that the kit uses. A context draws straight alpha over what is there.
@_exported import Foundation

public typealias CFData = Data
public typealias CFDictionary = [AnyHashable: Any]
public typealias CFString = String
public typealias CFURL = URL

public enum CGColorSpaceModel { case monochrome, rgb, cmyk, indexed }
public enum CGImageAlphaInfo: UInt32 {
    case none, premultipliedLast, premultipliedFirst, last, first, noneSkipLast, noneSkipFirst, alphaOnly
}
public enum CGImageByteOrderInfo { case orderMask, orderDefault, order16Little, order32Little, order16Big, order32Big }
public enum CGInterpolationQuality { case `default`, none, low, medium, high }

public final class CGColorSpace {
    public static let sRGB = "sRGB"
    public let model: CGColorSpaceModel
    public init?(name: CFString) { model = .rgb }
    public init(_ model: CGColorSpaceModel) { self.model = model }
}

public final class CGDataProvider {
    public let data: CFData?
    public init(_ data: CFData?) { self.data = data }
}

public final class CGImage {
    public let width: Int
    public let height: Int
    public let bitsPerComponent = 8
    public let bitsPerPixel: Int
    public let bytesPerRow: Int
    public let colorSpace: CGColorSpace?
    public let alphaInfo: CGImageAlphaInfo
    public let byteOrderInfo: CGImageByteOrderInfo
    public let decode: UnsafePointer<CGFloat>? = nil
    public let dataProvider: CGDataProvider?

    public init(
        _ width: Int, _ height: Int, _ step: Int, _ model: CGColorSpaceModel, _ alpha: CGImageAlphaInfo,
        _ order: CGImageByteOrderInfo, _ data: Data
    ) {
        (self.width, self.height, bitsPerPixel, bytesPerRow) = (width, height, step * 8, data.count / height)
        (colorSpace, alphaInfo, byteOrderInfo) = (CGColorSpace(model), alpha, order)
        dataProvider = CGDataProvider(data)
    }

    public func copy(colorSpace space: CGColorSpace) -> CGImage? { self }
}

/// Draws images of RGBA bytes only.
public final class CGContext {
    public let data: UnsafeMutableRawPointer?
    public var interpolationQuality = CGInterpolationQuality.default
    private let width: Int

    public init?(
        data: UnsafeMutableRawPointer?, width: Int, height: Int, bitsPerComponent: Int, bytesPerRow: Int,
        space: CGColorSpace, bitmapInfo: UInt32
    ) {
        self.data = .allocate(byteCount: bytesPerRow * height, alignment: 16)
        self.width = width
    }

    deinit { data?.deallocate() }

    public func draw(_ image: CGImage, in rect: CGRect) {
        let source = [UInt8](image.dataProvider!.data!), target = data!.assumingMemoryBound(to: UInt8.self)
        for at in stride(from: 0, to: source.count, by: 4) {
            let alpha = Int(source[at + 3])
            for channel in at..<at + 3 {
                let sum = Int(source[channel]) * alpha + Int(target[channel]) * (255 - alpha)
                target[channel] = UInt8((sum + 127) / 255)
            }
        }
    }
}
