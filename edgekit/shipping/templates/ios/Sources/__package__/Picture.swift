// Pictures of files, of CGImage and of the camera. Made by edgekit.
//
// Pixels are taken as the file stores them, as in training: no colour is managed, and nothing is resized or turned by
// the system. Pictures of 8 bits, RGB or grey, opaque or with straight alpha, are read where they lie. What
// CoreGraphics stores otherwise (palettes, CMYK, 16 bits, premultiplied alpha) is drawn 1:1 into sRGB over the
// background. There, CoreGraphics computes colour x alpha + background x (1 - alpha) and rounds by its own rule, and
// converts colours other than RGB: levels may differ from training's, a little for alpha, by more for CMYK.

#if canImport(CoreGraphics) && canImport(ImageIO)
import CoreGraphics
import Foundation
import ImageIO

#if canImport(CoreVideo)
import CoreVideo
#endif

extension Classifier {
    /// Classifies a picture file: JPEG, PNG, HEIC and whatever ImageIO reads, upright by its EXIF orientation.
    public func classify(contentsOf url: URL) throws -> [Answer] {
        try answers(scores(of: square(contentsOf: url)))
    }

    /// Classifies a picture.
    ///
    /// - Parameter orientation: EXIF's, 1 to 8. A CGImage has none of its own: that of a UIImage is lost in `cgImage`.
    public func classify(_ image: CGImage, orientation: Int = 1) throws -> [Answer] {
        try answers(scores(of: square(of: image, orientation: orientation)))
    }

    /// Returns the square of pixels that the network takes of a file.
    public func square(contentsOf url: URL) throws -> [UInt8] {
        guard let source = CGImageSourceCreateWithURL(url as CFURL, nil),
            let image = CGImageSourceCreateImageAtIndex(source, 0, nil)
        else { throw ClassifierError("\(url.lastPathComponent) is no picture that can be read") }
        let properties = CGImageSourceCopyPropertiesAtIndex(source, 0, nil) as? [CFString: Any]
        return try square(of: image, orientation: properties?[kCGImagePropertyOrientation] as? Int ?? 1)
    }

    /// Returns the square of pixels that the network takes of a picture.
    public func square(of image: CGImage, orientation: Int = 1) throws -> [UInt8] {
        guard let format = format(of: image), let stored = image.dataProvider?.data else {
            return try drawn(image, orientation)
        }
        return try (stored as Data).withUnsafeBytes { bytes in
            let pixels = try Pixels(
                bytes, width: image.width, height: image.height, stride: image.bytesPerRow, format: format)
            return fit.square(of: pixels.turned(orientation))
        }
    }

    /// Returns the square of a picture that has to be drawn first.
    private func drawn(_ image: CGImage, _ orientation: Int) throws -> [UInt8] {
        let (width, height) = (image.width, image.height)
        guard let space = CGColorSpace(name: CGColorSpace.sRGB),
            let context = CGContext(
                data: nil, width: width, height: height, bitsPerComponent: 8, bytesPerRow: width * 4, space: space,
                bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue),
            let memory = context.data
        else { throw ClassifierError("a picture of \(width) x \(height) cannot be drawn") }
        let bytes = UnsafeMutableRawBufferPointer(start: memory, count: width * height * 4)
        for at in bytes.indices { bytes[at] = at % 4 < 3 ? fit.background[at % 4] : 255 }
        let asStored = image.colorSpace?.model == .rgb ? image.copy(colorSpace: space) : nil
        context.interpolationQuality = .none
        context.draw(asStored ?? image, in: CGRect(x: 0, y: 0, width: width, height: height))
        return try withExtendedLifetime(context) {
            let pixels = try Pixels(
                UnsafeRawBufferPointer(bytes), width: width, height: height, stride: width * 4, format: .rgbx)
            return fit.square(of: pixels.turned(orientation))
        }
    }

    #if canImport(CoreVideo)
    /// Classifies a camera frame of the format kCVPixelFormatType_32BGRA.
    ///
    /// - Parameter orientation: EXIF's, 1 to 8: how the frame has to be turned, 6 for most phones held upright.
    public func classify(_ frame: CVPixelBuffer, orientation: Int = 1) throws -> [Answer] {
        guard CVPixelBufferGetPixelFormatType(frame) == kCVPixelFormatType_32BGRA else {
            throw ClassifierError("frames must be kCVPixelFormatType_32BGRA: set videoSettings of the output")
        }
        CVPixelBufferLockBaseAddress(frame, .readOnly)
        defer { CVPixelBufferUnlockBaseAddress(frame, .readOnly) }
        let (width, height) = (CVPixelBufferGetWidth(frame), CVPixelBufferGetHeight(frame))
        let stride = CVPixelBufferGetBytesPerRow(frame)
        let bytes = UnsafeRawBufferPointer(start: CVPixelBufferGetBaseAddress(frame), count: stride * height)
        let pixels = try Pixels(bytes, width: width, height: height, stride: stride, format: .bgrx)
        return try classify(pixels.turned(orientation))
    }
    #endif
}

/// Returns how the stored bytes of a picture are read; nil if it has to be drawn.
func format(of image: CGImage) -> Format? {
    let model = image.colorSpace?.model
    let step = image.bitsPerPixel / 8, colours = model == .rgb ? 3 : 1
    guard image.bitsPerComponent == 8, model == .rgb || model == .monochrome, image.decode == nil else { return nil }
    let (start, alpha): (Int, Int?)
    switch image.alphaInfo {
    case .none where step == colours: (start, alpha) = (0, nil)
    case .noneSkipLast where step == colours + 1: (start, alpha) = (0, nil)
    case .noneSkipFirst where step == colours + 1: (start, alpha) = (1, nil)
    case .last where step == colours + 1: (start, alpha) = (0, colours)
    case .first where step == colours + 1: (start, alpha) = (1, 0)
    default: return nil
    }
    let green = colours == 3 ? 1 : 0
    let format = Format(step: step, red: start, green: start + green, blue: start + 2 * green, alpha: alpha)
    switch image.byteOrderInfo {
    case .orderDefault: return format
    case .order32Big where step == 4: return format
    case .order32Little where step == 4:
        return Format(
            step: 4, red: 3 - format.red, green: 3 - format.green, blue: 3 - format.blue, alpha: alpha.map { 3 - $0 })
    default: return nil
    }
}
#endif
