#include "runtime/parallel/unit.h"

#include <string>

namespace plumb {

namespace {

Attrs fold_attrs(bool copy_first) {
    Attrs attrs;
    attrs.state = {};
    attrs.state.copy_first = copy_first ? 1 : 0;
    return attrs;
}

// A run of adjacent parameters of a unit that are treated alike.
struct Piece {
    Param first;
    int64_t elements = 0;
};

std::vector<Piece> pieces_of(const Program& program, const Unit& unit) {
    std::vector<Piece> pieces;
    for (const ParamId id : unit.params) {
        const Param& param = program.params[static_cast<size_t>(id)];
        const Param* before = pieces.empty() ? nullptr : &pieces.back().first;
        if (before != nullptr && before->decay == param.decay &&
            before->trainable == param.trainable && before->is_matrix() == param.is_matrix())
            pieces.back().elements += param.elements();
        else
            pieces.push_back({param, param.elements()});
    }
    return pieces;
}

}  // namespace

void record_fold_parts(Builder& b) {
    for (size_t u = 0; u < b.program().units.size(); ++u) {
        const Unit unit = b.program().units[u];
        if (unit.grad != kNoTensor)
            b.record(OpKind::fold, fold_attrs(true), {unit.grad, unit.grad_part});
    }
    for (size_t p = 0; p < b.program().params.size(); ++p)
        for (const GradUse& use : std::vector<GradUse>(b.program().params[p].further_uses))
            if (use.part != kNoTensor)
                b.record(OpKind::fold, fold_attrs(true), {use.grad, use.part});
}

std::vector<SectionId> record_update(Builder& b, TensorId sum, TensorId clip, TensorId loss_scale) {
    std::vector<SectionId> sections = {b.begin_section(SectionKind::update, "norm")};
    for (size_t p = 0; p < b.program().params.size(); ++p) {
        const Param param = b.program().params[p];
        for (const GradUse& use : param.further_uses)
            if (use.grad != kNoTensor)
                b.record(OpKind::fold, fold_attrs(false), {param.grad, use.grad});
    }
    bool begin = true;
    for (size_t u = 0; u < b.program().units.size(); ++u) {
        const Unit unit = b.program().units[u];
        if (unit.grad == kNoTensor) continue;
        Attrs attrs;
        attrs.state = {};
        attrs.state.begin = begin ? 1 : 0;
        b.record(OpKind::grad_norm, attrs, {sum, unit.grad});
        begin = false;
    }
    b.record(OpKind::clip, {}, {clip, sum, loss_scale});
    if (loss_scale != kNoTensor) b.record(OpKind::loss_scale, {}, {loss_scale, clip});
    b.end_section();
    for (size_t u = 0; u < b.program().units.size(); ++u) {
        const Unit unit = b.program().units[u];
        if (unit.grad == kNoTensor) continue;
        sections.push_back(
            b.begin_section(SectionKind::update, "update." + unit.name, 0, static_cast<UnitId>(u)));
        int number = 0;
        for (const Piece& piece : pieces_of(b.program(), unit)) {
            if (!piece.first.trainable) continue;
            const std::string name = unit.name + ".piece" + std::to_string(number++);
            using Of = Builder::UnitTensor;
            const auto part = [&](Of what) {
                return b.unit_view(name, piece.first, what, make_shape(piece.elements));
            };
            Attrs attrs;
            attrs.state = {};
            attrs.state.decay = piece.first.decay ? 1 : 0;
            const TensorId master = piece.first.master == kNoTensor ? kNoTensor : part(Of::master);
            b.record(OpKind::adamw, attrs,
                     {part(Of::weight), master, part(Of::grad), part(Of::moment1),
                      part(Of::moment2), clip});
        }
        b.end_section();
    }
    return sections;
}

}  // namespace plumb
