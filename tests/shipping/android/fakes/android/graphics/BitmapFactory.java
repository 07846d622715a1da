package android.graphics;

public class BitmapFactory {
    public static class Options {
        public Bitmap.Config inPreferredConfig;
        public boolean inPremultiplied = true;
        public int inSampleSize;
        public ColorSpace inPreferredColorSpace;
    }

    public static Bitmap decodeByteArray(byte[] file, int offset, int length, Options options) {
        if (options.inPremultiplied || options.inSampleSize > 1) throw new IllegalArgumentException();
        if (length < 9) return null;
        return new Bitmap(com.example.fruit.CheckKt.decoded(file));
    }
}
