"""The builtin methods, registered like those of any plugin."""

from debiasbench.core.hooks import Register, hookimpl


@hookimpl
def debiasbench_register_methods(register: Register) -> None:
    """Register the builtin methods; each is imported only when it is used."""
    register("erm", "debiasbench.methods.erm:ERM")
    register("upweight", "debiasbench.methods.upweight:Upweight")
    register("groupdro", "debiasbench.methods.groupdro:GroupDRO")
    register("jtt", "debiasbench.methods.jtt:JTT")
    register("lff", "debiasbench.methods.lff:LfF")
    register("dfr", "debiasbench.methods.dfr:DFR")
    register("rest", "debiasbench.methods.rest:REST")
    register("subg", "debiasbench.methods.subg:SUBG")
    register("suby", "debiasbench.methods.suby:SUBY")
    register("rwg", "debiasbench.methods.rwg:RWG")
    register("rwy", "debiasbench.methods.rwy:RWY")
    register("reweight", "debiasbench.methods.reweight:Reweight")
    register("focal", "debiasbench.methods.focal:Focal")
    register("balanced-softmax", "debiasbench.methods.balanced_softmax:BalancedSoftmax")
    register("mixup", "debiasbench.methods.mixup:Mixup")
    register("cnc", "debiasbench.methods.cnc:CnC")
    register("dcwp", "debiasbench.methods.dcwp:DCWP")
    register("ldam", "debiasbench.methods.ldam:LDAM")
    register("crt", "debiasbench.methods.crt:CRT")
    register("cvar", "debiasbench.methods.cvar:CVaRDRO")
    register("irm", "debiasbench.methods.irm:IRM")
    register("coral", "debiasbench.methods.coral:CORAL")
    register("mmd", "debiasbench.methods.mmd:MMD")
    register("disent", "debiasbench.methods.disent:DisEnt")
    register("lc", "debiasbench.methods.lc:LC")
    register("denetdm", "debiasbench.methods.denetdm:DeNetDM")
    register("afr", "debiasbench.methods.afr:AFR")
    register("bpa", "debiasbench.methods.bpa:BPA")
    register("masktune", "debiasbench.methods.masktune:MaskTune")
    register("spare", "debiasbench.methods.spare:SPARE")
    register("eiil", "debiasbench.methods.eiil:EIIL")
    register("george", "debiasbench.methods.george:GEORGE")
    register("lisa", "debiasbench.methods.lisa:LISA")
    register("pde", "debiasbench.methods.pde:PDE")
    register("divdis", "debiasbench.methods.divdis:DivDis")
    register("ssa", "debiasbench.methods.ssa:SSA")
