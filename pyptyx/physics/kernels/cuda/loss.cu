// The data terms of the far field, as kernels/reference.py defines them.

enum Loss { LSQ_SQRT, ML, LSQ, LSQ_SQRT_2 };

struct Compared {
    float value, slope;
};

// l(I, D) and dl/dI.
template <Loss LOSS>
INLINE Compared compare(float intensity, float data, float floor) {
    if (LOSS == LSQ_SQRT) {
        const float amplitude = sqrtf(intensity);
        const float residual = amplitude - sqrtf(data);
        return {residual * residual, residual / (amplitude > 0 ? amplitude : 1.0f)};
    }
    if (LOSS == ML) {
        // In the dark the logarithm counts as that of 1.
        if (!(intensity > 0)) return {intensity, -data};
        const float safe = fmaxf(intensity, floor);
        float logarithm = logf(safe);
        if (floor > 0) logarithm += (intensity - safe) / floor;
        return {intensity - data * logarithm, 1.0f - data / safe};
    }
    const float residual = intensity - data;
    if (LOSS == LSQ) return {residual * residual, 2.0f * residual};
    if (data > 0.5f) return {0.5f * residual * residual / data, residual / data};
    return {intensity, 1.0f};
}
